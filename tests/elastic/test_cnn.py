"""Adjustable width and depth: the profile that a network runs under where no levels are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import KINDS, make_elastic, make_images, make_levels, relative_error
from torch import Tensor, nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import LevelsError

kinds = pytest.mark.parametrize("kind", KINDS)


class SkipMLP(nn.Module):
    """Linear layers alone, with two branches that may be dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(20, 32)
        self.branches = nn.ModuleList(nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 32)) for _ in range(2))
        self.last = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for branch in self.branches:
            x = x + branch(x)
        return self.last(x)


def make_mlp() -> ElasticCNN:
    torch.manual_seed(0)
    return ElasticCNN.from_model(SkipMLP(), (20,))


@kinds
@torch.no_grad()
def test_what_is_set_back_computes_what_it_did(kind: str) -> None:
    elastic, images = make_elastic(kind), make_images(4)
    before = elastic(images)
    assert torch.equal(before, elastic(images, elastic.full))
    changes: list[Callable[[], Any]] = [
        lambda: elastic.set_width(0.5),
        lambda: elastic.set_profile(make_levels(elastic, 1)[0]),
        *([lambda: elastic.set_depth(0.0)] if elastic.drop_order else []),
    ]
    for change in changes:
        change()
        assert not torch.equal(elastic(images), before)
    elastic.set_width(1.0)
    elastic.set_depth(1.0)
    assert torch.equal(elastic(images), before)


@kinds
@torch.no_grad()
def test_a_context_ends_with_what_was_set_before_it(kind: str) -> None:
    elastic = make_elastic(kind)
    elastic.set_width(0.5)
    with elastic.set_width(0.25) as same:
        assert same is elastic
        assert elastic.profile.tolist() == [1] * elastic.n_groups
        with pytest.raises(ZeroDivisionError), elastic.set_profile(elastic.full):
            raise ZeroDivisionError
        assert elastic.profile.tolist() == [1] * elastic.n_groups
    assert elastic.profile.tolist() == [2] * elastic.n_groups


@kinds
@torch.no_grad()
def test_the_default_profile_is_run_and_sliced(kind: str) -> None:
    elastic, images = make_elastic(kind), make_images(4)
    for profile in make_levels(elastic, 4):
        elastic.set_profile(profile.tolist())
        assert torch.equal(elastic.profile, profile)
        assert torch.equal(elastic(images), elastic(images, profile))
        assert relative_error(elastic.slice()(images), elastic(images)) < 1e-5


def test_width_and_depth_are_set_apart() -> None:
    elastic = make_elastic("residual")
    n_branches = len(elastic.drop_order)
    elastic.set_depth(1 / n_branches)
    elastic.set_width(0.5)
    *gone, last = elastic.drop_order
    assert [elastic.profile[group].item() for group in gone] == [0] * len(gone)
    assert elastic.profile[last] == 2
    elastic.set_depth(1)
    assert elastic.profile.tolist() == [2] * elastic.n_groups
    elastic.set_profile(elastic.min_level)
    elastic.set_width(0.75)
    assert elastic.profile.tolist() == [0 if low == 0 else 3 for low in elastic.min_level.tolist()]


@torch.no_grad()
def test_perceptrons_are_adjustable_too() -> None:
    elastic, inputs = make_mlp(), torch.randn(6, 20)
    before = elastic(inputs)
    assert len(elastic.drop_order) == 2
    with elastic.set_width(0.5), elastic.set_depth(0.5):
        assert sum(p.numel() for p in elastic.slice().parameters()) < sum(p.numel() for p in SkipMLP().parameters()) / 2
        assert relative_error(elastic.slice()(inputs), elastic(inputs)) < 1e-5
    assert torch.equal(elastic(inputs), before)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("plain", lambda e: e.set_width(0.3), r"width 0\.3 is none that .*; allowed: 0\.25, 0\.5, 0\.75, 1\.0 "),
        ("plain", lambda e: e.set_width(0), "width 0 is none .*branches are dropped by set_depth"),
        ("residual", lambda e: e.set_depth(1.5), r"depth 1\.5 is no share; allowed: 0 .* to 1"),
        ("residual", lambda e: e.set_depth(float("nan")), "depth nan is no share"),
        ("plain", lambda e: e.set_depth(0.5), r"depth 0\.5 is impossible, .*: none of its groups is skippable; all"),
        ("plain", lambda e: e.set_profile([9] * e.n_groups), r"level 9 of group 0 .*; allowed: "),
        ("plain", lambda e: e.set_profile(torch.ones(2, e.n_groups).long()), r"levels are for 2 images; one profile"),
    ],
)
def test_what_a_network_does_not_have_changes_nothing(kind: str, change: Any, message: str) -> None:
    elastic = make_elastic(kind)
    with pytest.raises(LevelsError, match=message):
        change(elastic)
    assert torch.equal(elastic.profile, elastic.full)
