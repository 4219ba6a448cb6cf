from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from nets import IMAGE_SHAPE, KINDS, Do, make_images, network
from opaque import Gate, with_gate
from torch import Tensor, nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import ModelError
from rlprune.graph import tracing


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        y = F.relu(self.again(x), inplace=True)
        y += x
        y *= 2
        y.relu_()
        torch.relu_(y)
        x.clamp_(0, 0.1)
        return (x + y).mean((2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_tracing_changes_no_output(kind: str) -> None:
    model, images = network(kind), make_images(2)
    assert torch.equal(tracing.trace(model)(images), model(images))


@pytest.mark.parametrize("kind", KINDS)
def test_stem_and_body_make_the_network(kind: str) -> None:
    traced, images = tracing.trace(network(kind)), make_images(2)
    stem, body = tracing.split_stem(traced)
    assert torch.equal(body(stem(images)), traced(images))
    assert len({*stem.state_dict()} & {*body.state_dict()}) == 0
    assert sum(isinstance(layer, nn.Conv2d) for layer in stem.modules()) == 1


def test_the_stem_is_empty_when_two_layers_read_the_image() -> None:
    class TwoEyes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return (self.a(x) + self.b(x)).mean((2, 3))

    stem, body = tracing.split_stem(tracing.trace(TwoEyes()))
    images = make_images(1)
    assert torch.equal(stem(images), images)
    assert len(list(body.children())) == 2


def test_in_place_operations_are_gone() -> None:
    model, images = InPlace().eval(), make_images(2)
    traced = tracing.trace(model)
    assert torch.equal(traced(images), model(images.clone()))
    for node in traced.graph.nodes:
        assert not node.kwargs.get("inplace")
        assert not str(getattr(node.target, "__name__", node.target)).endswith("_")
    assert not any(getattr(layer, "inplace", False) for layer in traced.modules())


def test_the_body_leaves_the_stem_s_features_as_they_are() -> None:
    stem, body = tracing.split_stem(tracing.trace(InPlace()))
    features = stem(make_images(2)).detach()
    before = features.clone()
    assert torch.equal(body(features), body(features))
    assert torch.equal(features, before)


def test_the_model_itself_is_not_changed() -> None:
    model = network("plain").train()
    before = copy.deepcopy(model)
    tracing.trace(model)
    assert model.training
    assert [str(layer) for layer in model.modules()] == [str(layer) for layer in before.modules()]


@pytest.mark.parametrize("gate", [Gate(), Gate(16)])
def test_what_cannot_be_traced_stays_one_layer_and_the_rest_is_pruned(gate: Gate) -> None:
    model = with_gate(gate).eval()
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    assert any(node.target == "3" for node in elastic.body.graph.nodes)
    assert "4" in {group.name for group in elastic.groups}
    images = make_images(1)
    assert torch.allclose(elastic(images, elastic.full), model(images), atol=1e-6)


def test_a_forward_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(ModelError, match=r"torch.fx cannot trace the forward of Gate(.|\n)*submodule"):
        tracing.trace(Gate())


def test_a_second_input_is_refused() -> None:
    class TwoInputs(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(ModelError, match="takes 2 inputs"):
        tracing.trace(TwoInputs())


x = {"node": "x"}


class Optional(nn.Module):
    """A forward with switches, checks and a size that it insists on, as libraries have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor, features: bool = False, scale: float = 2.0, mask: Tensor | None = None) -> object:
        assert x.shape[2] >= 8, "too small"
        if x.shape[1] != 3:
            raise ValueError("three channels are needed")
        y = self.conv(x).relu()
        y.mul_(scale)
        if mask is not None:
            y = y * mask
        return (y, x) if features else self.linear(y.mean((2, 3)))


def test_optional_arguments_are_traced_as_their_defaults() -> None:
    model, images = Optional().eval(), make_images(2)
    traced = tracing.trace(model, images[:1])
    assert torch.equal(traced(images), model(images))
    assert [node.op for node in traced.graph.nodes].count("placeholder") == 1


def test_a_norm_without_statistics_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False))
    with pytest.raises(ModelError, match=r"1 \(BatchNorm2d\) has no running statistics .* depends on the others"):
        tracing.trace(model)


@pytest.mark.parametrize(
    "function", [lambda x: x.data * 2, lambda x: x.flatten(2).mT @ x.flatten(2), lambda x: x[0, 0].T]
)
def test_attributes_that_are_computed_are_methods(function: Callable[[Tensor], Tensor]) -> None:
    traced = tracing.trace(Do(function))
    assert torch.equal(traced(make_images(1)), function(make_images(1)))
    assert all(node.op != "call_function" or node.target is not getattr for node in traced.graph.nodes)
