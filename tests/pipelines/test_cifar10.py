"""The public networks on real images: accuracies to the last image, as their authors print them.

ResNet-56 gives 0.9339 on all of them, which takes a minute; here it has the first thousand.
"""

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


@pytest.mark.parametrize(("name", "n_images", "accuracy"), [("resnet20", 10_000, 0.9173), ("resnet56", 1_000, 0.935)])
def test_dense_accuracy(name: str, n_images: int, accuracy: float, assets: Path, test_images: data.ImageSet) -> None:
    model = models.build(name)
    models.load_weights(model, assets / "weights" / "cifar10" / f"{name}.safetensors")
    with torch.no_grad():
        results = evaluate_dense(model.eval(), test_images.subset(slice(n_images)))
    assert results.n_images == n_images
    assert results.accuracy == pytest.approx(accuracy, abs=1e-9)
