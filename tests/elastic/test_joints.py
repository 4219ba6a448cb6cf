"""Operations that move channels: whatever is behind them, one that cannot be followed stops no other layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from nets import IMAGE_SHAPE, N_CLASSES, make_images, make_levels, relative_error
from torch import Tensor, nn

from rlprune.elastic.channels import Group
from rlprune.elastic.cnn import ElasticCNN


class Net(nn.Module):
    """A group of 24 channels, something in between, and two groups behind it."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int = 24) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 24, 3)
        self.between = between
        self.second, self.third = nn.Conv2d(width, 16, 1), nn.Conv2d(16, 8, 1)
        self.linear = nn.Linear(8, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(self.between(self.first(F.relu(self.stem(x))))))
        return self.linear(F.relu(self.third(x)).mean((2, 3)))


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)


def picked(x: Tensor) -> Tensor:
    return torch.stack([x, x.sigmoid()], 1).sum(1)


def uneven(x: Tensor) -> Tensor:
    a, b = x.split([8, 16], 1)
    return torch.cat([a.relu(), b.tanh()], 1)


def repeated(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 1)


def attended(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).unflatten(2, x.shape[2:])


@torch.no_grad()
@pytest.mark.parametrize(
    ("between", "width"),
    [
        (shuffled, 24),
        (picked, 24),
        (uneven, 24),
        (repeated, 48),
        (attended, 24),
        (lambda x: F.pixel_shuffle(x, 2), 6),
        (lambda x: x.unflatten(1, (2, 12)).sum(1), 12),
        (lambda x: x.flip(1), 24),
        (lambda x: torch.einsum("nchw,nchw->nchw", x, x.softmax(1)), 24),
        (lambda x: F.normalize(x, dim=1), 24),
        (lambda x: x * torch.cat([x.mean(1, True), x.amax(1, True)], 1).mean(1, True).sigmoid(), 24),
    ],
)
def test_the_layers_behind_are_pruned_whatever_stands_in_front(between: Callable[[Tensor], Tensor], width: int) -> None:
    torch.manual_seed(0)
    model = Net(between, width).eval()
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE, round_to=4)
    assert {group.name for group in elastic.groups} == {"second", "third"}
    assert [item.reason for item in elastic.unprunable if item.name == "first"]
    check(elastic, model)


def check(elastic: ElasticCNN, model: nn.Module) -> None:
    """The network itself at full keep, and the same by masks and slices."""
    images = make_images(4)
    assert relative_error(elastic(images, elastic.full), model(images)) <= 1e-5
    elastic = elastic.double()
    levels = make_levels(elastic, 4)
    masked = elastic(images.double(), levels)
    for image, profile, logits in zip(images.double().split(1), levels, masked.split(1), strict=True):
        assert relative_error(elastic.slice(profile)(image), logits) <= 1e-9


def groups_of(model: nn.Module) -> dict[str, Group]:
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE, round_to=2)
    with torch.no_grad():
        check(elastic, model)
    return {group.name: group for group in elastic.groups}


def test_parts_of_a_split_that_go_separate_ways_stay_equally_wide() -> None:
    class Parts(Net):
        def __init__(self) -> None:
            super().__init__(self.apart, 48)
            self.convs = nn.ModuleList(nn.Conv2d(8, 16, 3, padding=1) for _ in range(3))

        def apart(self, x: Tensor) -> Tensor:
            a, b, c = x.split(8, 1)
            return torch.cat([self.convs[0](a), self.convs[1](b), self.convs[2](c)], 1)

    torch.manual_seed(0)
    groups = groups_of(Parts().eval())
    assert groups["first"].n_channels == 8 and groups["first"].layer_channels == 1
    assert groups["convs.2"].n_channels == 16
    (member,) = (member for member in groups["first"].members if member.layer == "first")
    assert member.runs == ((0, 0, 8, 1), (8, 0, 8, 1), (16, 0, 8, 1))


@pytest.mark.parametrize("expands", [False, True])
def test_a_map_of_one_channel_is_tied_to_none_that_it_multiplies(expands: bool) -> None:
    class Attention(Net):
        def __init__(self) -> None:
            super().__init__(self.attend)
            self.hidden, self.where = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 1, 3, padding=1)
            self.shrink = nn.Conv2d(24, 8, 1)

        def attend(self, x: Tensor) -> Tensor:
            where = self.where(F.relu(self.hidden(self.shrink(x))))
            return x * (where.sigmoid().expand_as(x) if expands else where.sigmoid())

    torch.manual_seed(0)
    groups = groups_of(Attention().eval())
    assert {"first", "hidden", "shrink"} <= groups.keys()
    assert set(groups["first"].layers("in")) == {"shrink", "second"}


def test_a_linear_layer_over_positions_reads_no_channels() -> None:
    class Mixer(Net):
        def __init__(self) -> None:
            super().__init__(self.mix)
            self.tokens = nn.Linear(144, 144)

        def mix(self, x: Tensor) -> Tensor:
            return self.tokens(x.flatten(2)).unflatten(2, (12, 12))

    torch.manual_seed(0)
    elastic = ElasticCNN.from_model(Mixer().eval(), IMAGE_SHAPE)
    reasons = {item.name: item.reason for item in elastic.unprunable}
    assert "tokens (Linear) does not read its input channel by channel" in reasons["first"]
    assert {group.name for group in elastic.groups} == {"second", "third"}


def test_a_norm_over_neighbouring_channels_leaves_the_layer_in_front_alone() -> None:
    head = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    layers = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.LocalResponseNorm(5), nn.Conv2d(16, 16, 3), *head
    elastic = ElasticCNN.from_model(nn.Sequential(*layers).eval(), (3, 12, 12))
    assert [group.name for group in elastic.groups] == ["3"]
    assert {item.name: item.reason for item in elastic.unprunable}[
        "1"
    ] == "2 (LocalResponseNorm) reads neighbouring channels"
