"""Adjustable width and depth: the profile that a network runs under where no levels are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import KINDS, Residual, make_elastic, make_images, make_levels, relative_error
from torch import Tensor, nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.norms import ElasticBatchNorm
from rlprune.errors import LevelsError
from rlprune.storage.structure import describe, rebuild

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


def test_the_branches_that_matter_least_go_first() -> None:
    elastic = ElasticCNN.from_model(Residual(), (3, 16, 16))
    branches = elastic.drop_order
    assert len(branches) > 1
    for scales in ([2.0, 1.0, 3.0], [1.0, 3.0, 2.0]):
        for group, scale in zip(sorted(branches), scales, strict=False):
            (exit_,) = elastic.groups[group].exits
            norm = elastic.body.get_submodule(str(next(n for n in elastic.body.graph.nodes if n.name == exit_).target))
            assert isinstance(norm, ElasticBatchNorm)
            norm.weight.data.fill_(scale)
        wanted = [group for _, group in sorted(zip(scales, sorted(branches), strict=False))]
        assert list(elastic.drop_order) == wanted


@torch.no_grad()
def test_images_rank_branches_by_what_changes_without_them() -> None:
    elastic, images = make_elastic("residual"), make_images(16)
    least = sorted(elastic.drop_order)[-1]
    (exit_,) = elastic.groups[least].exits
    norm = elastic.body.get_submodule(str(next(n for n in elastic.body.graph.nodes if n.name == exit_).target))
    assert isinstance(norm, ElasticBatchNorm)
    norm.bias.zero_()  # the branch that only a scale makes look large
    norm.running_mean.zero_()
    norm.running_var.fill_(1e12)
    norm.weight.fill_(5.0)
    assert elastic.drop_order[-1] == least
    elastic.rank_depth(images)
    assert elastic.drop_order[0] == least
    again = rebuild(json.loads(json.dumps(describe(elastic))))
    assert again.drop_order == elastic.drop_order


def test_ranking_leaves_the_network_in_the_mode_and_with_the_statistics_it_had() -> None:
    elastic = make_elastic("residual").train()
    before = {name: value.clone() for name, value in elastic.state_dict().items()}
    elastic.rank_depth(make_images(8))
    assert elastic.training
    assert all(value.equal(before[name]) for name, value in elastic.state_dict().items())
    with pytest.raises(LevelsError, match="there are no images to rank branches by"):
        elastic.rank_depth(make_images(8)[:0])


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


def test_without_a_keep_ratio_of_zero_there_is_no_depth() -> None:
    elastic = ElasticCNN.from_model(Residual(), (3, 16, 16), keep_ratios=(0.5, 1))
    with pytest.raises(LevelsError, match="its keep ratios do not include 0; allowed: 1"):
        elastic.set_depth(0.5)
    elastic.set_depth(1)
