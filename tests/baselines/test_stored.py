from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nets import make_data, make_elastic, make_images

from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.baselines.stored import load_gated, save_gated
from rlprune.errors import BundleError
from rlprune.storage.folders import kind_of
from rlprune.storage.networks import load_network


def make_gated(net: str, kind: str) -> GatedCNN:
    torch.manual_seed(0)
    return GatedCNN(make_elastic(net), kind).eval()


@pytest.mark.parametrize("kind", ["channels", "branches"])
@torch.no_grad()
def test_it_comes_back_from_its_folder(kind: str, tmp_path: Path) -> None:
    gated, data, images = make_gated("residual", kind), make_data(4), make_images(4)
    save_gated(tmp_path / "gated", gated, data, {"note": 1})
    saved = load_gated(tmp_path / "gated")
    assert (
        kind_of(tmp_path / "gated") == "gated" and saved.metadata == {"note": 1} and saved.data.classes == data.classes
    )
    assert torch.equal(saved.network.source[0](images), gated.source[0](images))  # to learn from, and to stand beside
    for ours, theirs in zip(gated.run(images), saved.network.run(images), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
    with pytest.raises(BundleError, match="holds a gated; a network or bundle is needed"):
        load_network(tmp_path / "gated")


def test_a_folder_with_gates_that_cannot_be_is_refused(tmp_path: Path) -> None:
    gated = make_gated("residual", "channels")
    gated.threshold = 2.0
    save_gated(tmp_path / "gated", gated, make_data(4))
    with pytest.raises(BundleError, match=r"threshold of gates is 2\.0"):
        load_gated(tmp_path / "gated")
