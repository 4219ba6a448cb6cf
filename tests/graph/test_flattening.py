from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from nets import Do
from torch import Tensor, fx, nn

from rlprune.graph.flattening import read_chunks
from rlprune.graph.nodes import measure

X = torch.randn(1, 32, 4, 4, generator=torch.Generator().manual_seed(0))


def read(model: nn.Module) -> fx.GraphModule:
    network = fx.symbolic_trace(model)
    measure(network, X)
    read_chunks(network)
    return network


def split(x: Tensor) -> Tensor:
    a, b = x.split(16, 1)
    return a * b


def split_into_sections(x: Tensor) -> Tensor:
    a, b = torch.split(x, [16, 16], dim=1)
    return a * b


def slices(x: Tensor) -> Tensor:
    return x[:, :8] * x[:, 8:16, ...] + x[:, 16:24, :, :] * x[:, -8:]


@pytest.mark.parametrize(
    ("model", "n_parts"),
    [
        (Do(split), 2),
        (Do(split_into_sections), 2),
        (Do(slices), 4),
        (nn.Sequential(nn.GLU(1)), 2),
        (nn.Sequential(nn.GLU(-3)), 2),
        (Do(lambda x: F.glu(x, dim=1)), 2),
    ],
)
def test_what_cuts_channels_into_equal_parts_is_a_chunk(model: nn.Module, n_parts: int) -> None:
    network = read(model)
    chunks = [node for node in network.graph.nodes if node.target is torch.chunk]
    assert chunks and all(node.args[1:] == (n_parts, 1) for node in chunks)
    assert torch.equal(network(X), model(X))
    narrow = X[:, : X.shape[1] // 2]
    assert network(narrow).shape[1] == network(X).shape[1] // 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.split([8, 24], 1)[1],
        lambda x: x.split(2, 2)[0],
        lambda x: x.split(24, 1)[0],
        lambda x: x[:, 4:12],
        lambda x: x[:, ::2],
        lambda x: x[:, :16, 1:],
        lambda x: x[0, :16],
        lambda x: x[:, 3],
        lambda x: F.glu(x),
    ],
)
def test_any_other_cut_stays(function: Callable[[Tensor], Tensor]) -> None:
    network = read(Do(function))
    assert all(node.target is not torch.chunk for node in network.graph.nodes)
    assert torch.equal(network(X), function(X))


def test_a_slice_of_the_last_dimension_cuts_no_channels() -> None:
    class Rolled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x[..., 4:], x[..., :4]], -1)

    traced = read(Rolled())
    assert torch.equal(traced(X), Rolled()(X))
    assert not any("chunk" in str(node.target) for node in traced.graph.nodes)
