from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import IMAGE_SHAPE, KINDS, make_data, make_elastic, make_levels

from rlprune.elastic.cnn import ElasticCNN
from rlprune.profiles.cost import Cost
from rlprune.storage.networks import load_network, save_network


def pickled(network: ElasticCNN) -> ElasticCNN:
    again: ElasticCNN = pickle.loads(pickle.dumps(network))
    return again


def cloudpickled(network: ElasticCNN) -> ElasticCNN:
    again: ElasticCNN = pickle.loads(pytest.importorskip("cloudpickle").dumps(network))
    return again


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("send", [pickled, cloudpickled, copy.deepcopy])
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_was_sent_or_copied_is_as_good_as_new(
    kind: str, send: Callable[[Any], ElasticCNN], loaded: bool, tmp_path: Path
) -> None:
    network = make_elastic(kind)
    if loaded:
        save_network(tmp_path / "network", network, make_data(4), {})
        network = load_network(tmp_path / "network").network
    again = send(network.eval())
    images, levels = torch.randn(4, *IMAGE_SHAPE), make_levels(network, 4)
    for given in (levels, levels[0], None):
        assert torch.equal(again(images, given), network(images, given))
    assert torch.equal(again.slice(levels[0])(images), network.slice(levels[0])(images))
    for one, other in zip(Cost(again).of(levels), Cost(network).of(levels), strict=True):
        assert torch.equal(one, other)
    for part, original in ((again.stem, network.stem), (again.body, network.body)):
        nodes = zip(part.graph.nodes, original.graph.nodes, strict=True)
        assert all((node.name, node.meta["shape"]) == (old.name, old.meta["shape"]) for node, old in nodes)
    assert not any(module.training for module in again.modules())


def test_a_network_that_was_sent_is_trained_and_sent_on() -> None:
    again = pickled(pickled(make_elastic("residual").train()))
    assert again.training and again.body.training
    again(torch.randn(4, *IMAGE_SHAPE), make_levels(again, 4)).sum().backward()
    assert all(value.grad is not None for value in again.stem.parameters())
    assert again.state_dict().keys() == make_elastic("residual").state_dict().keys()
