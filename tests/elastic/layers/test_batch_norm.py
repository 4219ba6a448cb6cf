from __future__ import annotations

import torch
from nets import make_elastic
from torch import nn

from rlprune.elastic.axes import Axis
from rlprune.elastic.layers import Choice
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm


def test_norms_have_one_set_per_level_of_the_group_consumed_before_or_else_of_their_own() -> None:
    elastic = make_elastic("residual")
    layers = elastic.elastic_layers()
    switch = {name: layer.switch for name, layer in layers.items() if isinstance(layer, ElasticBatchNorm)}
    assert switch == {"b1.bn1": 0, "b1.bn2": 0, "b2.bn1": 1, "b2.bn2": 1, "b3.bn1": 2, "b3.bn2": 2}
    assert layers["b1.bn1"].weight.shape == (5, 16)
    assert layers["b1.bn2"].running_mean.shape == (5, 16)


def test_a_norm_behind_a_depthwise_convolution_follows_the_group_that_it_carries() -> None:
    layers = make_elastic("depthwise").elastic_layers()
    for block in ("b1", "b2", "b3"):
        norms = [layers[f"{block}.bn{n}"] for n in (1, 2, 3)]
        assert all(isinstance(norm, ElasticBatchNorm) and norm.weight.shape[0] == 5 for norm in norms)
        own = norms[0].out_axis.only_group
        assert [norm.switch for norm in norms] == [own] * 3 and own is not None
    assert make_elastic("concat").elastic_layers()["bn"].weight.shape[0] == 1  # of two groups and fixed channels


def test_a_norm_without_scale_or_momentum_is_the_plain_norm() -> None:
    norm = nn.BatchNorm2d(4, affine=False, momentum=None).eval()
    norm.running_mean.normal_()
    elastic = ElasticBatchNorm(norm, Axis(4), None, 3, False).eval()
    choice = Choice(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    x = torch.randn(2, 4, 3, 3)
    assert torch.allclose(elastic(x, choice), norm(x), atol=1e-6)
    assert torch.equal(elastic.plain(choice).eval()(x), elastic(x, choice))
