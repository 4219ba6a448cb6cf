"""The public networks on real images: the accuracies that their authors print, to the last image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlprune import data, models
from rlprune.evaluation.static import evaluate_dense


@pytest.fixture(scope="module")
def test_images(assets: Path) -> data.ImageSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLPRUNE_DATA", str(assets / "data"))
        return data.load("cifar10").test


@pytest.mark.parametrize(("name", "accuracy"), [("resnet20", 0.9173), ("resnet56", 0.9339)])
def test_dense_accuracy(name: str, accuracy: float, assets: Path, test_images: data.ImageSet) -> None:
    model = models.build(name)
    models.load_weights(model, assets / "weights" / "cifar10" / f"{name}.safetensors")
    with torch.no_grad():
        results = evaluate_dense(model.eval(), test_images)
    assert results.n_images == 10_000
    assert results.accuracy == pytest.approx(accuracy, abs=1e-9)
