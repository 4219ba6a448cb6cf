from __future__ import annotations

import pytest
import torch
from nets import make_images, network
from torch import nn

from rlprune.errors import ModelError
from rlprune.graph import nodes, tracing


def test_measuring_counts_every_multiply_add() -> None:
    traced = tracing.trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 5)))
    nodes.measure(traced, make_images(1))
    assert [node.meta.get("macs") for node in traced.graph.nodes] == [0, 8 * 3 * 9 * 256, 0, 0, 8 * 256 * 5, 0]
    assert [node.meta["shape"] for node in traced.graph.nodes][1:3] == [(1, 8, 16, 16)] * 2


def test_images_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ModelError, match=r"does not run on an input of shape \(1, 4, 8, 8\)"):
        nodes.measure(tracing.trace(network("plain")), torch.zeros(1, 4, 8, 8))


def test_alive_nodes_end_at_constants() -> None:
    traced = tracing.trace(network("residual"))
    names = {node.name for node in traced.graph.nodes}
    assert nodes.alive_nodes(traced.graph) == names
    assert names - nodes.alive_nodes(traced.graph, ["b3_bn2"]) == {"b3_conv1", "b3_bn1", "b3_relu", "b3_conv2"}
