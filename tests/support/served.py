"""A tiny network that is ready to be served: a folder as `rlprune optimize` leaves it, without a static network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from nets import make_centred, make_data, make_levels, make_policy
from torch import Tensor

import rlprune
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.export import to_onnx
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

DATA = make_data(60)
CLASSES = DATA.classes


class Deployed(NamedTuple):
    """A folder to serve, the network in it, and images for it, uint8 (60, 3, 16, 16)."""

    folder: Path
    dynamic: DynamicCNN
    images: Tensor


@cache
def _network() -> tuple[DynamicCNN, bytes]:
    elastic = make_centred()
    book = sorted_codebook(make_levels(elastic, 2, seed=3), Cost(elastic))
    policy = make_policy(elastic, DATA, book, max_passes=3)
    dynamic = DynamicCNN(elastic, policy, DATA.mean, DATA.std, DATA.classes)
    return dynamic, to_onnx(dynamic)


def make_deployed(folder: Path) -> Deployed:
    """Write `dynamic.onnx`, `labels.txt` and `bundle/` into a folder."""
    dynamic, content = _network()
    (folder / "dynamic.onnx").write_bytes(content)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    rlprune.save_bundle(folder / "bundle", dynamic.elastic, dynamic.source_policy, DATA)
    return Deployed(folder, rlprune.load(folder / "bundle"), DATA.images)
