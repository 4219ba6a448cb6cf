from __future__ import annotations

import copy
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import (
    IMAGE_SHAPE,
    KINDS,
    Residual,
    make_elastic,
    make_images,
    make_levels,
    network,
    randomise_levels,
    relative_error,
)
from torch import Tensor, nn

from rlprune.data.decoding import decode
from rlprune.data.image_set import normalise
from rlprune.data.loading import STATISTICS
from rlprune.data.sources import find
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.layers import ElasticConv2d, ElasticLinear
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.errors import LevelsError
from rlprune.models.registry import build
from rlprune.models.weights import load_weights

TOLERANCE = 1e-5
both = pytest.mark.parametrize("residual", [False, True])
kinds = pytest.mark.parametrize("kind", KINDS)


def check_masked_is_sliced(elastic: ElasticCNN, images: Tensor, n: int = 20) -> None:
    profiles = make_levels(elastic, n)
    profiles[0], profiles[1] = elastic.min_level, elastic.full
    for profile in profiles:
        masked = elastic(images, profile.expand(len(images), -1))
        assert relative_error(elastic.slice(profile)(images), masked) < TOLERANCE
        assert relative_error(elastic(images, profile), masked) < TOLERANCE


@kinds
@both
@torch.no_grad()
def test_full_keep_is_the_original(kind: str, residual: bool) -> None:
    model, images = network(kind), make_images(16)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE, residual=residual)
    for logits in (elastic(images, elastic.full), elastic(images, elastic.full.expand(16, -1))):
        assert relative_error(logits, model(images)) < TOLERANCE
        assert torch.equal(logits.argmax(1), model(images).argmax(1))


@kinds
@both
@torch.no_grad()
def test_masked_is_sliced(kind: str, residual: bool) -> None:
    check_masked_is_sliced(make_elastic(kind, residual=residual), make_images(4))


@pytest.mark.cifar10
@torch.no_grad()
def test_a_pretrained_resnet20_keeps_its_predictions_and_its_slices_are_its_masks(assets: Path) -> None:
    pytest.importorskip("pyarrow")
    model = build("resnet20").eval()
    load_weights(model, assets / "weights" / "cifar10" / "resnet20.safetensors")
    source = find(str(assets / "data" / "cifar10" / "test-00000-of-00001.parquet"))
    pixels, _ = decode(dataclasses.replace(source, records=itertools.islice(source.records, 64)), range(64), None)
    images = normalise(torch.from_numpy(pixels), *STATISTICS["cifar10"])
    elastic = ElasticCNN.from_model(model, (3, 32, 32))
    assert (elastic.n_groups, elastic.min_level.sum()) == (9, 0)
    assert torch.equal(elastic(images, elastic.full).argmax(1), model(images).argmax(1))
    assert relative_error(elastic(images, elastic.full.expand(64, -1)), model(images)) < TOLERANCE
    check_masked_is_sliced(randomise_levels(elastic), images[:4])


@kinds
@torch.no_grad()
def test_an_image_alone_is_the_same_image_in_any_batch(kind: str) -> None:
    elastic, images = make_elastic(kind), make_images(6)
    levels = make_levels(elastic, 6)
    together = elastic(images, levels)
    backwards = elastic(images.flip(0), levels.flip(0)).flip(0)
    alone = torch.cat([elastic(images[i : i + 1], levels[i]) for i in range(6)])
    assert relative_error(alone, together) < TOLERANCE
    assert relative_error(backwards, together) < TOLERANCE


@kinds
@torch.no_grad()
def test_features_and_body_are_the_network(kind: str) -> None:
    elastic, images = make_elastic(kind), make_images(3)
    levels = make_levels(elastic, 3)
    features = elastic.stem(images)
    assert tuple(features.shape[1:]) == elastic.feature_shape
    assert torch.equal(elastic.run_body(features, levels), elastic(images, levels))


@kinds
@torch.no_grad()
def test_ranking_changes_nothing(kind: str) -> None:
    elastic, images = make_elastic(kind, residual=True), make_images(4)
    before = elastic(images, elastic.full)
    generator = torch.Generator().manual_seed(1)
    elastic.rank(lambda layers, n: torch.rand(n, generator=generator))
    assert relative_error(elastic(images, elastic.full), before) < TOLERANCE
    check_masked_is_sliced(elastic, images, 5)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (
            torch.zeros(2, dtype=torch.int64),
            r"shape \(2,\); this network has 3 groups, so \(3,\) or \(B, 3\) is needed",
        ),
        (torch.zeros(1, 1, 3, dtype=torch.int64), r"shape \(1, 1, 3\)"),
        (torch.ones(3), r"dtype torch.float32; int64 indices into \(0.0, 0.25, 0.5, 0.75, 1.0\) are needed"),
        (torch.ones(3, dtype=torch.bool), r"dtype torch.bool"),
        (torch.tensor([0, 0, 0]), r"level 0 of group 1 \(b2.expand\) does not exist; allowed: 1 to 4"),
        (torch.tensor([[1, 1, 1], [1, 1, 5]]), r"level 5 of group 2 \(b3.expand\) does not exist; allowed: 0 to 4"),
        (torch.tensor([-1, 1, 1]), r"level -1 of group 0 \(b1.expand\) does not exist; allowed: 0 to 4"),
        (torch.ones(3, 3, dtype=torch.int64), r"levels are for 3 images; levels for 2 images, or one profile \(G,\)"),
    ],
)
def test_levels_that_the_network_does_not_have(levels: Tensor, message: str) -> None:
    with pytest.raises(LevelsError, match=message):
        make_elastic("depthwise")(make_images(2), levels)


def test_a_slice_has_one_profile() -> None:
    with pytest.raises(LevelsError, match=r"levels are for 2 images; one profile \(G,\) is needed"):
        make_elastic("plain").slice(torch.ones(2, 3, dtype=torch.int64))


def test_a_slice_takes_plain_numbers() -> None:
    elastic, images = make_elastic("plain"), make_images(2)
    assert torch.equal(elastic.slice([1, 2, 3])(images), elastic.slice(torch.tensor([1, 2, 3]))(images))


@torch.no_grad()
def test_without_a_ratio_of_zero_nothing_is_skipped() -> None:
    elastic = ElasticCNN.from_model(network("residual"), IMAGE_SHAPE, keep_ratios=(0.5, 1))
    assert elastic.min_level.tolist() == [0, 0, 0]
    assert elastic.widths.tolist() == [[8, 16], [16, 32], [16, 32]]
    check_masked_is_sliced(randomise_levels(elastic), make_images(4))


class Dropped(nn.Module):
    """What is left of a residual block whose branch is gone."""

    def __init__(self, block: nn.Module, bias: Tensor) -> None:
        super().__init__()
        self.block, self.bias = block, bias[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.block.shortcut(x) + self.bias)


@pytest.mark.parametrize("gone", [{"b1"}, {"b2"}, {"b1", "b3"}, {"b1", "b2", "b3"}])
@torch.no_grad()
def test_level_0_leaves_the_learnt_bias(gone: set[str]) -> None:
    model, images = network("residual"), make_images(4)
    assert isinstance(model, Residual)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    profile = elastic.full
    for index, name in enumerate(("b1", "b2", "b3")):
        if name in gone:
            norm, profile[index] = elastic.elastic_layers()[f"{name}.bn2"], 0
            bias = torch.randn(norm.bias.shape[1])
            norm.bias[0] = bias
            setattr(model, name, Dropped(getattr(model, name), bias))
    assert relative_error(elastic(images, profile.expand(4, -1)), model(images)) < TOLERANCE
    assert relative_error(elastic.slice(profile)(images), model(images)) < TOLERANCE


@torch.no_grad()
def test_a_dropped_branch_without_norm_leaves_the_convolution_s_bias() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.up, self.down = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return (x + self.down(F.relu(self.up(x)))).mean((2, 3))

    model, images = Branch(), make_images(2)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    expected = (model.stem(images) + model.down.bias[:, None, None]).mean((2, 3))
    assert relative_error(elastic(images, torch.tensor([0])), expected) < TOLERANCE
    assert relative_error(elastic(images, torch.tensor([[0], [0]])), expected) < TOLERANCE


def kept(layer: Any, side: str, widths: list[int]) -> Tensor:
    axis = layer.in_axis if side == "in" else layer.out_axis
    mask = torch.zeros(axis.size, dtype=torch.bool)
    mask[axis.kept(widths)] = True
    return mask


@kinds
def test_only_kept_weights_have_gradients_and_both_ways_have_the_same(kind: str) -> None:
    elastic, images = make_elastic(kind, residual=True), make_images(3)
    (profile,) = make_levels(elastic, 1, seed=3).clamp_min(1)
    widths = elastic.widths[torch.arange(elastic.n_groups), profile].tolist()
    gradients = []
    for levels in (profile, profile.expand(3, -1)):
        elastic.zero_grad()
        F.cross_entropy(elastic(images, levels), torch.tensor([0, 1, 2])).backward()
        gradients.append({name: p.grad.clone() for name, p in elastic.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7
    for name, layer in elastic.elastic_layers().items():
        if isinstance(layer, ElasticConv2d | ElasticLinear):
            gradient, out = (
                gradients[0][f"body.{name}.weight"].unsqueeze(-1).flatten(2).abs().sum(-1),
                kept(layer, "out", widths),
            )
            assert not gradient[~out].any()
            assert gradient[out].any()
            if layer.in_axis.runs:
                assert not gradient[:, ~kept(layer, "in", widths)].any()


@torch.no_grad()
def test_training_under_a_profile_updates_its_own_statistics() -> None:
    elastic, images = make_elastic("concat"), make_images(8)
    elastic.train()
    layers = {name: layer for name, layer in elastic.elastic_layers().items() if isinstance(layer, ElasticBatchNorm)}
    before = {name: (layer.running_mean.clone(), layer.running_var.clone()) for name, layer in layers.items()}
    seen: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
        for name, layer in layers.items()
    ]
    profile = torch.tensor([2, 1, 1])
    widths = elastic.widths[torch.arange(3), profile].tolist()
    elastic(images, profile)
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        level = 0 if layer.switch is None else int(profile[layer.switch])
        mask = kept(layer, "out", widths)
        expected_mean, expected_var = before[name]
        m = layer.momentum
        expected_mean[level, mask] = (1 - m) * expected_mean[level, mask] + m * seen[name].mean((0, 2, 3))
        expected_var[level, mask] = (1 - m) * expected_var[level, mask] + m * seen[name].var((0, 2, 3))
        assert torch.allclose(layer.running_mean, expected_mean, atol=1e-6)
        assert torch.allclose(layer.running_var, expected_var, atol=1e-6)
        assert mask.sum() == {"bn": 16 + 8 + 8, "dbn": 8}[name]


@torch.no_grad()
def test_per_image_levels_leave_statistics_alone_even_in_training() -> None:
    elastic = make_elastic("residual").train()
    before = copy.deepcopy(elastic.state_dict())
    elastic.stem.eval()
    elastic(make_images(2), elastic.full.expand(2, -1))
    assert all(torch.equal(value, before[name]) for name, value in elastic.state_dict().items())


@kinds
def test_a_slice_is_made_of_ordinary_layers(kind: str) -> None:
    elastic = make_elastic(kind)
    small = elastic.slice(elastic.uniform(1))
    leaves = [layer for layer in small.modules() if not list(layer.children())]
    assert all(type(layer).__module__.startswith("torch.nn.modules") for layer in leaves)
    assert not any(isinstance(layer, nn.Dropout) and layer.training for layer in leaves)
    assert len({id(p) for p in small.parameters()} & {id(p) for p in elastic.parameters()}) == 0
    convolutions = {layer.out_channels for layer in leaves if isinstance(layer, nn.Conv2d)}
    assert convolutions <= {*elastic.widths.flatten().tolist(), *(item.n_channels for item in elastic.unprunable)}


def test_a_slice_does_not_hold_what_it_skips() -> None:
    elastic = make_elastic("residual")
    names = set(dict(elastic.slice([0, 4, 4]).named_parameters()))
    assert not any("b1" in name and "constant" not in name for name in names)
    assert sum("constant" in name for name in names) == 1


def test_deep_networks_can_be_copied_after_they_ran() -> None:
    elastic = ElasticCNN.from_model(build("resnet56"), (3, 32, 32)).eval()
    images = torch.ones(1, 3, 32, 32)
    with torch.no_grad():
        expected = elastic(images, elastic.full)
        assert torch.equal(copy.deepcopy(elastic)(images, elastic.full), expected)
