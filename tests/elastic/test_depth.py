"""Which branches are dropped, and in which order."""

from __future__ import annotations

import json

import pytest
import torch
from nets import Residual, make_elastic, make_images

from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.errors import LevelsError
from rlprune.storage.structure import describe, rebuild


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


def test_without_a_keep_ratio_of_zero_there_is_no_depth() -> None:
    elastic = ElasticCNN.from_model(Residual(), (3, 16, 16), keep_ratios=(0.5, 1))
    with pytest.raises(LevelsError, match="its keep ratios do not include 0; allowed: 1"):
        elastic.set_depth(0.5)
    elastic.set_depth(1)
