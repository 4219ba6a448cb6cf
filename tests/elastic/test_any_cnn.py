"""Networks that this project did not write: torchvision's, as they come."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from nets import make_levels, make_policy, randomise_levels, relative_error
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import rlprune
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import AdaptSettings, adapt

SIZE = 32


@pytest.fixture(scope="module")
def networks(assets: Path) -> ModuleType:
    """torchvision's models; without a build for this machine its import needs a helper first."""
    if "torchvision" not in sys.modules and torch.version.cuda is None:
        spec = importlib.util.spec_from_file_location("torchvision_cpu", assets / "tools" / "torchvision_cpu.py")
        assert spec is not None and spec.loader is not None
        helper = importlib.util.module_from_spec(spec)
        sys.modules["torchvision_cpu"] = helper  # it holds the operators that it defines
        spec.loader.exec_module(helper)
    if os.environ.get("CI"):
        return importlib.import_module("torchvision.models")
    return pytest.importorskip("torchvision.models")


@pytest.fixture(autouse=True)
def free_memory() -> Iterator[None]:
    yield
    gc.collect()


@pytest.mark.parametrize(
    ("name", "n_groups", "n_skippable"),
    [
        ("resnet18", 8, 8),  # 8 blocks
        ("mobilenet_v2", 16 + 3, 10),  # 16 expansions, 10 of them under a shortcut; 2 lone projections, the last layer
        ("vgg11_bn", 7 + 1, 0),  # 8 convolutions but for the stem, 1 linear layer
    ],
)
def test_any_cnn(networks: ModuleType, name: str, n_groups: int, n_skippable: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = getattr(networks, name)(num_classes=10).eval()
    if name == "vgg11_bn":  # its own linear layers have 120 million weights
        model.classifier = nn.Sequential(nn.Linear(512 * 7 * 7, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)).eval()
    images = torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8)
    data = ImageSet(images, torch.arange(8), tuple("0123456789"), (0.5,) * 3, (0.25,) * 3)
    elastic = randomise_levels(ElasticCNN.from_model(model, (3, SIZE, SIZE)))
    assert (elastic.n_groups, int((elastic.min_level == 0).sum())) == (n_groups, n_skippable)

    with torch.no_grad():
        pixels, (profile,) = data.normalised(slice(0, 2)), make_levels(elastic, 1)
        full = elastic(pixels, elastic.full)
        assert relative_error(full, model(pixels)) <= 1e-5
        small = elastic.slice(profile)
        assert relative_error(small(pixels), elastic(pixels, profile.expand(2, -1))) <= 1e-5
        with FlopCounterMode(display=False) as counter:
            small(pixels[:1])
        counted = sum(p.numel() for p in small.parameters()), counter.get_total_flops() // 2
        assert tuple(Cost(elastic).of(profile)) == counted
        del small, model

    codebook = torch.stack([elastic.uniform(1), elastic.full])
    rlprune.save_bundle(tmp_path / "bundle", elastic, make_policy(elastic, data, codebook=codebook), data)
    dynamic = rlprune.load(tmp_path / "bundle")
    with torch.no_grad():
        assert torch.equal(dynamic.elastic(pixels, profile), elastic(pixels, profile))
    assert dynamic(images).keep_ratios.shape == (8, n_groups)
    del dynamic

    before = {name: p.detach().clone() for name, p in elastic.named_parameters() if p.numel() < 10_000}
    adapt(elastic, data, AdaptSettings(epochs=1, batch_size=8, n_random=0, bf16=False))
    assert all(p.isfinite().all() for p in elastic.parameters())
    assert any(not torch.equal(p, before[name]) for name, p in elastic.named_parameters() if name in before)
