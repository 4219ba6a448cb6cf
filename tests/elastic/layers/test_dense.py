from __future__ import annotations

import pytest
import torch
from nets import make_elastic, make_images
from torch import nn

from rlprune.elastic.axes import Axis
from rlprune.elastic.layers import Choice, ElasticConv2d, ElasticLinear
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm


def test_what_a_layer_is_made_of() -> None:
    layers = make_elastic("plain").elastic_layers()
    kinds = {name: type(layer) for name, layer in layers.items()}
    assert kinds == {
        "features.3": ElasticConv2d,
        "features.4": ElasticBatchNorm,
        "features.7": ElasticConv2d,
        "classifier.1": ElasticLinear,
        "classifier.4": ElasticLinear,
    }


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="reflect", dilation=2),
        nn.Conv2d(3, 4, 3, padding="same", groups=1),
    ],
)
def test_padding_survives(conv: nn.Conv2d) -> None:
    elastic = ElasticConv2d(conv, Axis(3), Axis(4))
    choice = Choice(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    x = make_images(2)
    assert torch.equal(elastic(x, choice), conv(x))
    assert torch.equal(elastic.plain(choice)(x), conv(x))


def test_few_channels_at_every_other_position_are_picked_first_where_gradients_are_needed() -> None:
    conv = nn.Conv2d(4, 8, 1, stride=2)
    elastic = ElasticConv2d(conv, Axis(4), Axis(8))
    choice = Choice(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    images = torch.randn(2, 4, 9, 10).to(memory_format=torch.channels_last)
    images.requires_grad_()
    expected = torch.autograd.grad(conv(images.contiguous()).square().sum(), (images, conv.weight))
    found = torch.autograd.grad(elastic.sliced(images, choice).square().sum(), (images, elastic.weight))
    assert all(torch.allclose(*pair, atol=1e-4) for pair in zip(found, expected, strict=True))
