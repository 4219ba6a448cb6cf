"""Functional calls on a module's own weights are the layers that they are; views that flatten are `flatten`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from nets import IMAGE_SHAPE, make_images, make_levels, randomise_norms, relative_error
from torch import Tensor, nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.storage.structure import describe, rebuild


class NormAct(nn.BatchNorm2d):
    """A batch norm that also activates; the activation is a layer inside it."""

    def __init__(self, n_channels: int) -> None:
        super().__init__(n_channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        return self.act(y)


class SameConv(nn.Conv2d):
    """A convolution that pads by what its input's size leaves over, as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rest = [max((-size % self.stride[0]) + self.kernel_size[0] - self.stride[0], 0) for size in (width, height)]
        x = F.pad(x, [part for total in rest for part in (total // 2, total - total // 2)])
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class StandardConv(nn.Conv2d):
    """A convolution that standardises its weights on every pass."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias)


class OwnLinear(nn.Module):
    """A linear layer of nothing but tensors."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(n_out, n_in) / n_in)
        self.b = nn.Parameter(torch.randn(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.w, self.b)


Make = Callable[..., nn.Module]


def body(conv: Make, norm: Make, linear: Make) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 16), (16, 32), (32, 32)):
        layers += [conv(n_in, n_out, 3), norm(n_out), nn.ReLU()]
    return randomise_norms(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear(32, 5))).eval()


@pytest.mark.parametrize(
    ("conv", "norm", "linear"),
    [
        (nn.Conv2d, NormAct, nn.Linear),
        (SameConv, nn.BatchNorm2d, nn.Linear),
        (StandardConv, nn.BatchNorm2d, nn.Linear),
        (nn.Conv2d, nn.BatchNorm2d, OwnLinear),
    ],
)
@torch.no_grad()
def test_layers_of_other_classes_are_pruned_like_torch_s_own(conv: Make, norm: Make, linear: Make) -> None:
    model, images = body(conv, norm, linear), make_images(3)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    assert [group.name for group in elastic.groups] == ["3", "6"]
    assert {type(layer).__name__ for layer in elastic.slice().modules()} <= {
        "Sequential", "GraphModule", "Module", "Conv2d", "BatchNorm2d", "SiLU", "ReLU", "AdaptiveAvgPool2d", "Flatten",
        "Linear",
    }  # fmt: skip
    assert relative_error(elastic(images, elastic.full), model(images)) < 1e-5
    levels = make_levels(elastic, 3)
    assert relative_error(elastic.slice(levels[0])(images), elastic(images, levels[:1].expand(3, -1))) < 1e-5
    again = rebuild(json.loads(json.dumps(describe(elastic))))
    again.load_state_dict(elastic.state_dict())
    assert torch.equal(again(images, levels), elastic(images, levels))


class Flattened(nn.Module):
    """Two convolutions and a linear layer that reads every position."""

    def __init__(self, flatten: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.fc, self.flatten = nn.Linear(32 * 16, 5), flatten

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flatten(self.f(x)))


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.view(x.size(0), -1),
        lambda x: x.view(x.shape[0], -1),
        lambda x: x.view((x.size()[0], -1)),
        lambda x: x.reshape(x.size(0), 512),
        lambda x: x.view(-1, 32 * 4 * 4),
        lambda x: torch.reshape(x, (-1, 512)),
    ],
)
@torch.no_grad()
def test_views_that_flatten_have_no_fixed_size_and_no_layout(flatten: Callable[[Tensor], Tensor]) -> None:
    model, images = Flattened(flatten).eval(), make_images(2)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    assert [group.name for group in elastic.groups] == ["f.2"]
    expected = model(images)
    elastic = elastic.to(memory_format=torch.channels_last)
    assert relative_error(elastic(images.contiguous(memory_format=torch.channels_last)), expected) < 1e-5


class OwnWeights(nn.Module):
    """Layers that are nothing but weights in lists, and inside of each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.linear = nn.Conv2d(3, 16, 3), StandardConv(32, 32, 3), nn.Linear(32, 5)
        self.weights = nn.ParameterList([torch.randn(32, 16, 3, 3) / 9, torch.randn(32, 32, 1, 1) / 5])
        self.inner.outer = StandardConv(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(self.stem(x).relu(), self.weights[0]).relu()
        x = self.inner(F.conv2d(x, self.weights[1]).relu()).relu()
        return self.linear(F.normalize(self.inner.outer(x), dim=1).mean((2, 3)))


@torch.no_grad()
def test_weights_in_lists_and_layers_inside_of_layers_have_names_of_their_own() -> None:
    torch.manual_seed(0)
    model, images = OwnWeights().eval(), make_images(2)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    assert [group.name for group in elastic.groups] == ["weights", "weights_1_layer", "inner"]
    assert relative_error(elastic(images, elastic.full), model(images)) < 1e-5
