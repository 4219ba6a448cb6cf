from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import KINDS, make_elastic, make_images
from torch import Tensor, fx, nn

from rlprune.graph.constant_folding import join_shifts
from rlprune.graph.folding import fold_norms, optimize_for_inference


class Shifts(nn.Module):
    """Blocks of which only constants are left, after a convolution and a skip."""

    def __init__(self, values: Tensor, *, read_between: bool = False, last_rectified: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, values.shape[1], 1)
        for index, value in enumerate(values):
            self.register_parameter(f"c{index}", nn.Parameter(value.view(1, -1, 1, 1)))
        self.n, self.read_between, self.last_rectified = len(values), read_between, last_rectified

    def forward(self, x: Tensor) -> Any:
        y = between = F.relu(self.conv(x) + x)
        for index in range(self.n):
            y = getattr(self, f"c{index}") + y
            if index < self.n - 1 or self.last_rectified:
                y = torch.relu(y)
            between = y if index == 0 else between
        return (y, between.mean()) if self.read_between else y


def traced(module: nn.Module) -> fx.GraphModule:
    return fx.symbolic_trace(module.eval())


def calls(network: fx.GraphModule) -> Counter[Any]:
    return Counter(node.target for node in network.graph.nodes if node.op in ("call_function", "call_module"))


@pytest.mark.parametrize("last_rectified", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5])
@torch.no_grad()
def test_a_run_of_shifts_becomes_one_sum_in_the_bias_and_one_maximum(n: int, last_rectified: bool) -> None:
    generator = torch.Generator().manual_seed(n)
    network = traced(Shifts(torch.randn(n, 3, generator=generator), last_rectified=last_rectified))
    images = 2 * torch.randn(4, 3, 5, 5, generator=generator)
    expected = network(images)
    join_shifts(network)
    assert torch.allclose(network(images), expected, atol=1e-5)
    assert calls(network) == {"conv": 1, operator.add: 1, torch.maximum: 1}
    assert [name for name, _ in network.named_parameters(recurse=False)] == []


@torch.no_grad()
def test_where_no_constant_is_positive_a_rectifier_is_enough() -> None:
    network, images = traced(Shifts(-torch.rand(3, 3))), torch.randn(4, 3, 5, 5)
    expected = network(images)
    join_shifts(network)
    assert torch.allclose(network(images), expected, atol=1e-5)
    assert calls(network) == {"conv": 1, operator.add: 1, torch.relu: 1}


@torch.no_grad()
def test_what_others_read_as_well_stays() -> None:
    torch.manual_seed(0)  # constants of which some are positive
    network, images = traced(Shifts(torch.randn(3, 3), read_between=True)), torch.randn(4, 3, 5, 5)
    expected = network(images)
    join_shifts(network)
    for ours, theirs in zip(network(images), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert calls(network)[torch.maximum] == 2


@torch.no_grad()
def test_a_layer_that_others_read_or_that_is_called_twice_keeps_its_bias() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.twice = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1, bias=False)
            self.c = nn.Parameter(torch.randn(1, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            y, z = self.conv(x), self.twice(self.twice(x))
            return torch.relu(self.c + y) * y + torch.relu(self.c + z)

    network, images = traced(Shared()), torch.randn(4, 3, 5, 5)
    expected = network(images)
    join_shifts(network)
    assert torch.allclose(network(images), expected, atol=1e-5)
    assert network.twice.bias is None


@pytest.mark.parametrize("kind", sorted(KINDS))
@torch.no_grad()
def test_a_slice_that_runs_fastest_says_the_same_and_leaves_its_input_alone(kind: str) -> None:
    elastic, images = make_elastic(kind), make_images(4)
    for module in elastic.modules():
        if hasattr(module, "running_var"):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            if module.bias is not None:
                module.bias.uniform_(-1, 1)
    mixed = torch.where(torch.arange(elastic.n_groups) % 2 == 0, elastic.min_level, elastic.n_levels - 1)
    for profile in (elastic.full, elastic.uniform(2), elastic.uniform(0), mixed):
        plain = elastic.slice(profile)
        expected, fast, given = plain(images), optimize_for_inference(plain), images.clone()
        for part in fast:
            before = given.clone()
            after = part(given)
            assert torch.equal(given, before)
            assert torch.equal(part(given), after)
            given = after
        assert torch.allclose(given, expected, rtol=1e-3, atol=1e-4)
        assert torch.allclose(fold_norms(plain)(images), expected, rtol=1e-3, atol=1e-4)
