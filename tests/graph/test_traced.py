from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
import torch.nn.functional as F
from nets import IMAGE_SHAPE, KINDS, make_data, make_elastic, make_levels
from torch import Tensor, fx, nn

from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.profiles.cost import Cost
from rlprune.storage.networks import load_network, save_network

IMAGES = torch.randn(4, *IMAGE_SHAPE)


def pickled(sent: Any) -> Any:
    return pickle.loads(pickle.dumps(sent))


def cloudpickled(sent: Any) -> Any:
    return pickle.loads(cloudpickle.dumps(sent))


def saved(sent: Any) -> Any:
    file = io.BytesIO()
    torch.save(sent, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def measured(network: nn.Module) -> list[tuple[str, Any, Any]]:
    parts = [part for part in network.modules() if isinstance(part, fx.GraphModule)]
    nodes = [node for part in parts for node in part.graph.nodes]
    return [(node.name, node.meta["shape"], node.meta["macs"]) for node in nodes]


def check_same(again: ElasticCNN, network: ElasticCNN) -> None:
    levels = make_levels(network, 4)
    for given in (levels, levels[0], None):
        assert torch.equal(again(IMAGES, given), network(IMAGES, given))
    assert torch.equal(again.slice(levels[0])(IMAGES), network.slice(levels[0])(IMAGES))
    for cost in (Cost(again), pickled(Cost(network))):
        assert all(map(torch.equal, cost.of(levels), Cost(network).of(levels)))
    assert measured(again) == measured(network)
    assert not any(module.training for module in again.modules())


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("send", [pickled, cloudpickled, saved, copy.deepcopy])
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_was_sent_or_copied_is_as_good_as_new(
    kind: str, send: Callable[[Any], ElasticCNN], loaded: bool, tmp_path: Path
) -> None:
    network = make_elastic(kind)
    if loaded:
        save_network(tmp_path / "network", network, make_data(4), {})
        network = load_network(tmp_path / "network").network
    check_same(send(network.eval()), network)


def test_a_network_that_was_sent_is_trained_and_sent_on() -> None:
    again = pickled(pickled(make_elastic("residual").train()))
    assert again.training and again.body.training
    again(torch.randn(4, *IMAGE_SHAPE), make_levels(again, 4)).sum().backward()
    assert all(value.grad is not None for value in again.stem.parameters())
    assert again.state_dict().keys() == make_elastic("residual").state_dict().keys()


class Functional(nn.Module):
    """What torch makes of one function by another has no name that pickle could find."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.linear = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(F.max_pool2d(torch.relu(self.a(x)), 2), scale_factor=2.0, mode="nearest")
        x = F.adaptive_max_pool2d(F.hardswish(self.b(x[:, :, 1:, :-1]).clamp(min=-1.0)), (1, 1))
        return self.linear(x.flatten(1).to(torch.float32))


@pytest.mark.parametrize("send", [pickled, cloudpickled, saved, copy.deepcopy])
def test_functions_of_every_kind_arrive(send: Callable[[Any], ElasticCNN]) -> None:
    network = ElasticCNN.from_model(Functional(), IMAGE_SHAPE).eval()
    check_same(send(network), network)


@pytest.mark.parametrize("send", [pickled, cloudpickled, saved, copy.deepcopy])
def test_networks_inside_of_others_arrive_too(send: Callable[[Any], Any]) -> None:
    network = make_elastic("residual").eval()
    network.specialise(torch.stack([network.uniform(1), network.full]))
    network.separate()
    check_same(send(network), network)
    gated = GatedCNN(make_elastic("residual"), "branches").eval()
    assert torch.equal(send(gated).decide(IMAGES).compute.macs, gated.decide(IMAGES).compute.macs)
    part = network.slice(network.uniform(1))
    assert torch.equal(send(part)(IMAGES), part(IMAGES)) and measured(send(part)) == measured(part)
