from __future__ import annotations

import pytest
import torch
from nets import KINDS, make_elastic, make_images
from nets import network as make_network
from torch import nn

from rlprune.graph.folding import fold_for_teacher, fold_norms


@pytest.mark.parametrize("kind", sorted(KINDS))
@torch.no_grad()
def test_a_folded_slice_says_the_same_without_norms(kind: str) -> None:
    elastic, images = make_elastic(kind), make_images(4)
    for module in elastic.modules():
        if hasattr(module, "running_var"):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    for profile in (elastic.full, elastic.uniform(2), elastic.uniform(0)):
        plain = elastic.slice(profile)
        before = {name: value.clone() for name, value in plain.state_dict().items()}
        folded = fold_norms(plain)
        assert torch.allclose(folded(images), plain(images), rtol=1e-4, atol=1e-5)
        assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
        n_norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
        assert n_norms < sum(isinstance(layer, nn.BatchNorm2d) for layer in plain.modules()) or not n_norms
    assert not folded.training


@torch.no_grad()
def test_a_layer_that_is_called_twice_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.second(self.conv(self.first(self.conv(x))))
            return y

    network = nn.Sequential(torch.fx.symbolic_trace(Twice().eval()))
    network[0].first.running_var.fill_(4.0)
    images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fold_norms(network)(images), network(images))


@torch.no_grad()
def test_a_network_to_ask_is_a_copy_without_norms_if_it_can_be_traced() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.norm(x) if x.sum() > 0 else x
            return y

    images = make_images(4)
    for network, n_norms in ((make_network("residual"), 0), (Branching(), 1)):
        asked = fold_for_teacher(network.train())
        assert sum(isinstance(layer, nn.BatchNorm2d) for layer in asked.modules()) == n_norms
        assert torch.allclose(asked(images), network.eval()(images), rtol=1e-4, atol=1e-5)
        assert not asked.training
        assert asked is not network
