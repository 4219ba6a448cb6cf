from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import KINDS, make_elastic, make_images, make_levels
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.cost import Compute, Cost, mlp_cost
from rlprune.elastic import ElasticCNN
from rlprune.models import build


def counted(network: nn.Module) -> tuple[int, int]:
    """Parameters and multiply-adds of one image, counted on an ordinary network."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(make_images(1))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def pairs(compute: Compute) -> list[tuple[int, int]]:
    return list(zip(compute.params.tolist(), compute.macs.tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("residual", [False, True])
def test_cost_is_what_is_counted_on_the_slice(kind: str, residual: bool) -> None:
    elastic = make_elastic(kind, residual=residual)
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
    compute = Compute(torch.tensor(3), torch.tensor(5))
    assert (compute.of_kind("params"), compute.of_kind("macs")) == (3, 5)


def test_the_cost_of_linear_layers() -> None:
    compute = mlp_cost(nn.Sequential(nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)))
    assert (compute.params, compute.macs) == (10 * 7 + 7 + 7 * 3, 10 * 7 + 7 * 3)
