from __future__ import annotations

import pytest
import torch
from nets import IMAGE_SHAPE, N_CLASSES, make_elastic, make_images, relative_error
from torch import Tensor, nn

from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import ModelError
from rlprune.profiles.cost import Cost


class Nested(nn.Module):
    """A residual branch that holds another, and two that start from what one layer makes."""

    def __init__(self, n_channels: int = 16) -> None:
        super().__init__()
        names = ("stem", "outer1", "inner1", "inner2", "outer2", "shared", "a1", "a2", "b1", "b2")
        for name in names:
            setattr(self, name, nn.Conv2d(3 if name == "stem" else n_channels, n_channels, 3, padding=1))
        self.gates, self.branches = nn.Linear(n_channels, N_CLASSES), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        h = self.outer1(x).relu()
        h = h + self.inner2(self.inner1(h).relu())
        x = x + self.outer2(h.relu())
        h = self.shared(x).relu()
        x = x + self.a2(self.a1(h).relu()) + self.b2(self.b1(h).relu())
        return self.gates(x.mean((2, 3)))


@torch.no_grad()
def test_branches_inside_others_and_beside_them() -> None:
    torch.manual_seed(0)
    elastic = ElasticCNN.from_model(Nested(), IMAGE_SHAPE)
    images = make_images(4)
    for kind in ("channels", "branches"):
        gated = GatedCNN(elastic, kind).eval()
        ones = [torch.ones_like(said) for said in gated.run(images)[1]]
        assert relative_error(gated.decide(images, ones).logits, elastic(images, elastic.full)) < 1e-5
    assert len(gated.gated) == 3  # the inner one of the nested, and both others
    zeros = [torch.zeros(1, 1) for _ in gated.gated]
    conv, size = 9 * 16 * 16, 16 * 16
    left = int(gated.decide(images[:1], zeros).compute.macs - gated.gates_cost.macs)
    assert left == 9 * 3 * 16 * size + 3 * conv * size + 16 * N_CLASSES  # the shared layer runs all the same


def test_branches_that_read_more_than_features_are_left_alone() -> None:
    class Sized(Nested):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            n = x.shape[0]
            x = x + self.a2(self.a1(x).relu().expand(n, -1, -1, -1))
            return self.gates(x.mean((2, 3)).expand(n, -1))

    with pytest.raises(ModelError, match=r"no branch that gates could skip: .* reads only features"):
        GatedCNN(ElasticCNN.from_model(Sized(), IMAGE_SHAPE), "branches")


def test_gates_take_the_place_of_nothing() -> None:
    class Taken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.gating = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
            self.linear = nn.Linear(16, N_CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.gating(self.stem(x).relu()).relu().mean((2, 3)))

    with pytest.raises(ModelError, match="the network has a module called 'gating', where gates would be put; rename"):
        GatedCNN(ElasticCNN.from_model(Taken(), IMAGE_SHAPE))


def test_branches_need_a_network_that_has_some() -> None:
    with pytest.raises(
        ModelError, match=r"no branch that gates could skip.*choose gates for channels, which need no branch"
    ):
        GatedCNN(make_elastic("plain"), "branches")


@torch.no_grad()
@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 16), nn.GroupNorm(4, 16)])
def test_channels_that_a_norm_takes_together_are_not_hidden(norm: nn.Module) -> None:
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, N_CLASSES)
    layers = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), norm, nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), *head
    elastic = ElasticCNN.from_model(nn.Sequential(*layers), IMAGE_SHAPE, round_to=1)
    gated = GatedCNN(elastic, "channels").eval()
    assert len(gated.gated) == elastic.n_groups - (norm.num_groups == 1)
    images = make_images(3)
    half = [(torch.arange(each.shape[1]) < each.shape[1] // 2).float().expand(3, -1) for each in gated.run(images)[1]]
    decided = gated.decide(images, half)
    profile = elastic.full
    for index in gated.gated:
        widths = elastic.widths[index].tolist()
        profile[index] = widths.index(elastic.groups[index].n_channels // 2)
    assert relative_error(decided.logits, elastic(images, profile)) < 1e-5
    own = decided.compute.macs - gated.gates_cost.macs
    assert own.tolist() == [int(Cost(elastic).of(profile).macs)] * 3


def test_gates_need_a_group_whose_channels_can_be_hidden() -> None:
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, N_CLASSES)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.GroupNorm(1, 16), nn.ReLU(), *head)
    with pytest.raises(ModelError, match="norms take the channels of every group together"):
        GatedCNN(ElasticCNN.from_model(network, IMAGE_SHAPE), "channels")
