"""Branches that end in gates, layer scales and the like, and what is left where they are dropped: nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from nets import IMAGE_SHAPE, make_images, relative_error
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.elastic.cnn import ElasticCNN
from rlprune.profiles.cost import Cost

N_INNER = 24


class Squeeze(nn.Module):
    def __init__(self, first: bool) -> None:
        super().__init__()
        self.down, self.up, self.first = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1), first

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return gate * x if self.first else x * gate


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.view(1, -1, 1, 1)


class Call(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def drop_path(x: Tensor) -> Tensor:
    """Stochastic depth where nothing is dropped."""
    return x.div(0.9) * x.new_full((1, 1, 1, 1), 0.9)


ENDS: dict[str, Callable[[], nn.Module]] = {
    "gate": lambda: Squeeze(first=False),
    "gate before": lambda: Squeeze(first=True),
    "layer scale": LayerScale,
    "constant": lambda: Call(lambda x: 0.2 * x),
    "drop path": lambda: Call(drop_path),
    "dropout": lambda: nn.Sequential(nn.Identity(), nn.Dropout(0.3)),
    "activation": lambda: nn.LeakyReLU(0.1),
    "layout": lambda: Call(lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)),
    "all of them": lambda: nn.Sequential(nn.SiLU(), Squeeze(first=True), LayerScale(), nn.Dropout(0.3)),
}


class Block(nn.Module):
    def __init__(self, end: nn.Module, norm: bool, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.expand, self.project = nn.Conv2d(16, N_INNER, 3, 1, 1), nn.Conv2d(N_INNER, 16, 1)
        self.norm = nn.BatchNorm2d(16) if norm else nn.Identity()
        self.end, self.join = end, join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.end(self.norm(self.project(F.relu(self.expand(x))))))


def make(
    end: str, norm: bool = True, n_blocks: int = 2, join: Callable[[Tensor, Tensor], Tensor] = torch.add
) -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [Block(ENDS[end](), norm, join) for _ in range(n_blocks)]
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    with torch.no_grad():
        for norms in model.modules():
            if isinstance(norms, nn.BatchNorm2d):
                norms.running_mean.uniform_(-0.2, 0.2)
                norms.bias.uniform_(0.2, 0.4)
    return model.eval()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("norm", [True, False])
@torch.no_grad()
def test_a_dropped_branch_leaves_nothing(end: str, norm: bool) -> None:
    model = make(end, norm)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    branches = [index for index, group in enumerate(elastic.groups) if group.name.endswith(".expand")]
    assert [index for index, group in enumerate(elastic.groups) if group.skippable] == branches
    images = make_images(4)
    gone = elastic.full
    gone[branches] = 0
    want = model[-3:](model[0](images))
    assert relative_error(elastic(images, gone), want) <= 1e-5
    assert relative_error(elastic(images, gone.expand(4, -1)), want) <= 1e-5
    assert relative_error(elastic.slice(gone)(images), want) <= 1e-5
    one = elastic.full
    one[branches[0]] = 0
    assert relative_error(elastic(images, one.expand(4, -1)), nn.Sequential(model[0], *model[2:])(images)) <= 1e-5


@pytest.mark.parametrize("end", ENDS)
@torch.no_grad()
def test_masks_equal_slices_and_cost_what_is_counted(end: str) -> None:
    elastic = ElasticCNN.from_model(make(end), IMAGE_SHAPE)
    images = make_images(2)
    cost = Cost(elastic)
    for levels in itertools.islice(itertools.product((0, 2, 4), repeat=elastic.n_groups), 40):
        profile = torch.maximum(torch.tensor(levels), elastic.min_level)
        small = elastic.slice(profile)
        assert relative_error(small(images), elastic(images, profile.expand(2, -1))) <= 1e-5
        assert relative_error(small(images), elastic(images, profile)) <= 1e-5
        with FlopCounterMode(display=False) as counter:
            small(images[:1])
        counted = sum(p.numel() for p in small.parameters()), counter.get_total_flops() // 2
        assert tuple(int(value) for value in cost.of(profile)) == counted


@torch.no_grad()
def test_images_of_one_batch_may_drop_and_keep_a_branch() -> None:
    elastic = ElasticCNN.from_model(make("all of them"), IMAGE_SHAPE)
    images = make_images(3)
    levels = torch.stack([elastic.min_level, elastic.full, elastic.uniform(1)])
    rows = [elastic.slice(profile)(image[None]) for profile, image in zip(levels, images, strict=True)]
    assert relative_error(elastic(images, levels), torch.cat(rows)) <= 1e-5


def test_the_squeezed_channels_of_a_gate_are_no_branch() -> None:
    for size in (16, 2):  # at the smaller one the gated values are as few as the gates
        elastic = ElasticCNN.from_model(make("gate before"), (3, size, size))
        assert {group.name for group in elastic.groups if not group.skippable} == {"1.end.down", "2.end.down"}
        assert len(elastic.drop_order) == 2


def test_a_sum_that_scales_what_stays_is_not_left_out() -> None:
    def join(x: Tensor, branch: Tensor) -> Tensor:
        return torch.add(branch, x, alpha=0.5)

    assert not any(group.skippable for group in ElasticCNN.from_model(make("layout", join=join), IMAGE_SHAPE).groups)


def test_layer_scales_order_branches() -> None:
    model = make("layer scale", n_blocks=3)
    for block, scale in zip(model[1:4], (0.5, 0.1, 2.0), strict=True):
        nn.init.constant_(block.end.gamma, scale)
    assert ElasticCNN.from_model(model, IMAGE_SHAPE).drop_order == (1, 0, 2)


@pytest.mark.parametrize("end", ENDS)
def test_every_end_has_a_scale(end: str) -> None:
    model = make(end, n_blocks=3)
    for block, scale in zip(model[1:4], (0.5, 0.1, 2.0), strict=True):
        nn.init.constant_(block.norm.weight, scale)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    order = [elastic.groups[group].name for group in elastic.drop_order]
    assert end == "layer scale" or end == "all of them" or order == ["2.expand", "1.expand", "3.expand"]


def test_a_branch_can_be_trained_and_dropped() -> None:
    elastic = ElasticCNN.from_model(make("all of them"), IMAGE_SHAPE).train()
    images = make_images(4)
    for levels in (elastic.full, elastic.min_level, elastic.full.expand(4, -1), elastic.min_level.expand(4, -1)):
        elastic.zero_grad()
        elastic(images, levels).square().sum().backward()
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in elastic.parameters())
