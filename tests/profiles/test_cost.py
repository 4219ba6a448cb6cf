from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nets import IMAGE_SHAPE, KINDS, make_elastic, make_images, make_levels
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.elastic.cnn import ElasticCNN
from rlprune.models.registry import build
from rlprune.profiles.cost import ComputeCost, Cost, mlp_cost


def counted(network: nn.Module) -> tuple[int, int]:
    """Parameters and MACs of one image, counted on an ordinary network."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(make_images(1))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def pairs(compute: ComputeCost) -> list[tuple[int, int]]:
    return list(zip(compute.params.tolist(), compute.macs.tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", ["", "residual", "resolution"])
def test_cost_is_what_is_counted_on_the_slice(kind: str, more: str) -> None:
    elastic = make_elastic(kind, residual=more == "residual", resolution=more == "resolution")
    levels = make_levels(elastic, 20)
    levels[0], levels[1] = elastic.min_level, elastic.full
    assert pairs(Cost(elastic).of(levels)) == [counted(elastic.slice(profile)) for profile in levels]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_costs_what_its_rows_cost(kind: str) -> None:
    elastic = make_elastic(kind)
    cost, levels = Cost(elastic), make_levels(elastic, 10)
    rows = [cost.of(profile) for profile in levels]
    assert all(row.params.ndim == row.macs.ndim == 0 for row in rows)
    assert torch.equal(cost.of(levels).params, torch.stack([row.params for row in rows]))
    assert torch.equal(cost.of(levels).macs, torch.stack([row.macs for row in rows]))


@pytest.mark.parametrize("kind", KINDS)
def test_dense_and_stem_are_the_parts_of_the_original(kind: str) -> None:
    elastic = make_elastic(kind)
    cost, whole = Cost(elastic), elastic.slice(elastic.full)
    assert (int(cost.dense.params), int(cost.dense.macs)) == counted(whole)
    assert (int(cost.stem.params), int(cost.stem.macs)) == counted(elastic.stem)


def test_cost_by_hand() -> None:
    elastic = make_elastic("concat")  # a keeps 8 of 16 channels, b 16 of 24, d all 16; the 16 of the stem stay
    compute = Cost(elastic).of(torch.tensor([2, 2, 4]))
    joined = 8 + 16 + 16
    stem, a, b = 16 * 3 * 9 + 16, 8 * 16 + 8, 16 * 16 * 9 + 16
    assert compute.params == stem + a + b + 2 * joined + 16 * joined + 2 * 16 + 5 * 256 + 5
    assert compute.macs == 256 * (16 * 3 * 9 + 8 * 16 + 16 * 16 * 9 + 16 * joined) + 5 * 256


def test_resnet20_does_40_55_million_multiply_adds() -> None:
    cost = Cost(ElasticCNN.from_model(build("resnet20"), (3, 32, 32)))
    assert round(int(cost.dense.macs) / 1e6, 2) == 40.55
    assert cost.dense.params == 269_722


ELASTIC = make_elastic("se")
COST = Cost(ELASTIC)


@given(st.lists(st.integers(0, 4), min_size=6, max_size=6), st.integers(0, 5))
def test_keeping_more_never_costs_less(levels: list[int], group: int) -> None:
    less = torch.tensor(levels).maximum(ELASTIC.min_level)
    more = less.clone()
    more[group] = (more[group] + 1).clamp_max(4)
    a, b = COST.of(less), COST.of(more)
    assert a.params <= b.params
    assert a.macs <= b.macs


def test_the_kinds_of_cost() -> None:
    compute = ComputeCost(torch.tensor(3), torch.tensor(5))
    assert (compute.of_kind("params"), compute.of_kind("macs")) == (3, 5)


def test_the_cost_of_linear_layers() -> None:
    compute = mlp_cost(nn.Sequential(nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)))
    assert (compute.params, compute.macs) == (10 * 7 + 7 + 7 * 3, 10 * 7 + 7 * 3)


class Twice(nn.Module):
    """A convolution and a norm that are called twice, the second time in a branch that can be dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.bn = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16)
        self.up, self.down, self.linear = nn.Conv2d(16, 24, 1), nn.Conv2d(24, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.mix(F.relu(self.stem(x)))))
        x = x + self.down(F.relu(self.up(self.bn(self.mix(x)))))
        return self.linear(x.mean((2, 3)))


def test_a_layer_that_is_called_twice_works_twice_and_is_held_once() -> None:
    elastic = ElasticCNN.from_model(Twice(), IMAGE_SHAPE)
    cost, levels = Cost(elastic), torch.arange(5)[:, None]
    assert [group.name for group in elastic.groups] == ["up"]
    assert pairs(cost.of(levels)) == [counted(elastic.slice(profile)) for profile in levels]
    mix, narrow = 16 * 16 * 9 + 16 + 2 * 16, 8 * 16 + 8 + 16 * 8 + 16
    rest = 3 * 16 * 9 + 16 + 16 * 5 + 5
    assert cost.of(levels).params[:2].tolist() == [rest + mix + 16, rest + mix + narrow]
    assert int(cost.of(levels).macs.diff()[0]) == 14 * 14 * (16 * 16 * 9 + 2 * 8 * 16)  # mix runs once more


class Neighbours(nn.Module):
    """Two groups that share the weights between them, 4 x 4 pixels all the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.bn = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 3, 1, 1), nn.BatchNorm2d(16)
        self.b, self.linear = nn.Conv2d(16, 24, 1, bias=False), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.bn(self.a(self.stem(x))))))
        return self.linear(x.mean((2, 3)))


def test_a_group_s_own_cost_is_of_all_that_makes_or_reads_its_channels() -> None:
    cost = Cost(ElasticCNN.from_model(Neighbours(), (3, 4, 4), keep_ratios=(0.5, 1)))
    a, b = (cost.of_group(index) for index in range(2))
    assert (a.params, a.macs) == (8 * 16 * 9 + 16 + 2 * 16 + 16 * 24, 16 * (8 * 16 * 9 + 16 * 24))
    assert (b.params, b.macs) == (16 * 24 + 24 * 5, 16 * 16 * 24 + 24 * 5)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_together_cost_no_more_than_the_body_twice(kind: str) -> None:
    elastic = make_elastic(kind)
    cost = Cost(elastic)
    of_groups = [cost.of_group(index) for index in range(elastic.n_groups)]
    assert all(0 < own.params and 0 < own.macs for own in of_groups)  # a weight belongs to two groups at most
    assert sum(int(own.macs) for own in of_groups) <= 2 * int(cost.dense.macs - cost.stem.macs)
