"""A tiny network that is ready to be served: a folder as `rlprune optimize` leaves it, without its static network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from nets import make_centred, make_data, make_levels
from torch import Tensor

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.export import to_onnx
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage.bundle import load, save_bundle

DATA = make_data(60)
CLASSES = DATA.classes
BUDGETS = torch.tensor([[0.01, 1.5], [0.1, 0.75], [1.0, 0.25]], dtype=torch.float64)
"""Penalties, and what they are said to cost: numbers that float32 holds."""


class Deployed(NamedTuple):
    """A folder to serve, the network in it, and images for it, uint8 (60, 3, 16, 16)."""

    folder: Path
    dynamic: DynamicCNN
    images: Tensor


@cache
def make_dynamic() -> DynamicCNN:
    """A network whose policy, of random weights, knows a range of penalties and looks up to three times."""
    elastic = make_centred()
    book = sorted_codebook(make_levels(elastic, 2, seed=3), Cost(elastic))
    observer = Observer.fit(elastic, DATA, max_passes=3, pool=1, penalties=PenaltyRange(0.01, 1.0))
    actions = Actions.from_network(elastic, "profiles", book, 3)
    policy = Policy((observer.size, 16, actions.n_outputs), "Tanh", observer, actions, book, BUDGETS)
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return DynamicCNN.for_images(elastic, policy.eval(), DATA)


@cache
def make_file() -> bytes:
    """The network as an ONNX file; to make one takes seconds."""
    return to_onnx(make_dynamic())


def make_deployed(folder: Path) -> Deployed:
    """Write `dynamic.onnx`, `labels.txt` and `bundle/` into a folder."""
    dynamic = make_dynamic()
    (folder / "dynamic.onnx").write_bytes(make_file())
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    save_bundle(folder / "bundle", dynamic.elastic, dynamic.source_policy, DATA)
    return Deployed(folder, load(folder / "bundle"), DATA.images)
