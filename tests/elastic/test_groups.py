from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from nets import IMAGE_SHAPE, Do, Inverted, network
from torch import Tensor, nn

from rlprune.elastic.channels import Group
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import ModelError

RESIDUAL_STREAM = "residual stream: pruned only with residual=True"
STEM = "stem: the policy reads it"
SHARED = "shared with the stem, which the policy reads"
OUTPUT = "the network's output"


class Head(nn.Module):
    """stem -> first -> middle -> last -> pool -> linear; `between` says what happens behind `first`."""

    def __init__(self, between: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3)
        self.between, self.last = between, nn.Conv2d(width, 24, 1)
        self.linear = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(F.relu(self.first(F.relu(self.stem(x)))))
        return self.linear(F.relu(self.last(x)).mean((2, 3)))


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.conv(x)))


def make(model: nn.Module, residual: bool = False) -> tuple[dict[str, Group], dict[str, str]]:
    """Groups by name, and the reasons why others are left alone."""
    torch.manual_seed(0)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE, residual=residual)
    return {group.name: group for group in elastic.groups}, {item.name: item.reason for item in elastic.unprunable}


@pytest.mark.parametrize(
    ("kind", "residual", "groups", "skippable", "left_alone"),
    [
        *(
            (
                "plain",
                residual,
                {"features.3": 32, "features.7": 24, "classifier.1": 40},
                set(),
                {"features.0": STEM, "classifier.4": OUTPUT},
            )
            for residual in (False, True)
        ),
        (
            "residual",
            False,
            {"b1.conv1": 16, "b2.conv1": 32, "b3.conv1": 32},
            {"b1.conv1", "b2.conv1", "b3.conv1"},
            {"conv": STEM, "linear": OUTPUT} | dict.fromkeys(("b1.conv2", "b2.conv2", "b3.conv2"), RESIDUAL_STREAM),
        ),
        (
            "residual",
            True,
            {"b1.conv1": 16, "b2.conv1": 32, "b3.conv1": 32},
            {"b1.conv1", "b2.conv1", "b3.conv1"},
            {"conv": STEM, "linear": OUTPUT}
            | dict.fromkeys(
                ("b1.conv2", "b2.conv2", "b3.conv2"), "its channels are shifted on the way (ConstantPadNdBackward0)"
            ),
        ),
        (
            "depthwise",
            False,
            {"b1.expand": 32, "b2.expand": 48, "b3.expand": 48},
            {"b1.expand", "b3.expand"},
            {"conv": STEM, "b1.project": SHARED, "linear": OUTPUT}
            | dict.fromkeys(("b2.project", "b3.project"), RESIDUAL_STREAM),
        ),
        (
            "depthwise",
            True,
            {"b1.expand": 32, "b2.expand": 48, "b2.project": 24, "b3.expand": 48},
            {"b1.expand", "b3.expand"},
            {"conv": STEM, "b1.project": SHARED, "linear": OUTPUT},
        ),
        (
            "se",
            False,
            {"b1.expand": 32, "b1.down": 16, "b2.expand": 48, "b2.down": 16, "b3.expand": 48, "b3.down": 16},
            {"b1.expand", "b3.expand"},
            {"conv": STEM, "b1.project": SHARED, "linear": OUTPUT}
            | dict.fromkeys(("b2.project", "b3.project"), RESIDUAL_STREAM),
        ),
        ("concat", False, {"a": 16, "b": 24, "d": 16}, set(), {"stem": STEM, "linear": OUTPUT}),
    ],
)
def test_the_groups_of_each_kind(
    kind: str, residual: bool, groups: dict[str, int], skippable: set[str], left_alone: dict[str, str]
) -> None:
    found, alone = make(network(kind), residual)
    assert {name: group.n_channels for name, group in found.items()} == groups
    assert {name for name, group in found.items() if group.skippable} == skippable
    assert alone == left_alone


def test_a_group_holds_all_that_its_channels_run_through() -> None:
    groups, _ = make(network("se"))
    inner = groups["b1.expand"]
    assert set(inner.layers("out")) == {"b1.expand", "b1.bn1", "b1.depthwise", "b1.bn2", "b1.up"}
    assert set(inner.layers("in")) == {"b1.down", "b1.project"}
    assert inner.exits == ("b1_bn3",)


def test_a_concatenation_puts_channels_at_an_offset() -> None:
    groups, _ = make(network("concat"))
    runs = {member.layer: member.runs for member in groups["b"].members}
    assert runs["b"] == ((0, 0, 24, 1),)
    assert runs["bn"] == runs["d"] == ((32, 0, 24, 1),)


def test_a_flattened_channel_repeats() -> None:
    groups, _ = make(network("plain"))
    (member,) = (m for m in groups["features.7"].members if m.axis == "in")
    assert member.layer == "classifier.1"
    assert member.runs == ((0, 0, 24, 4),)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (nn.ConvTranspose2d(16, 16, 1, groups=4), "between (ConvTranspose2d) is no layer of a kind that can be pruned"),
        (nn.LayerNorm((16, 12, 12)), "between (LayerNorm) is no layer of a kind that can be pruned"),
        (Scale(), "it meets a free parameter, which has no known channel axis"),
        (Twice(), "between.conv is called more than once"),
        (Do(lambda x: x.softmax(1)), "slicing it changes other channels"),
        (Do(lambda x: x.flip(1)), "slicing it changes other channels"),
        (Do(lambda x: x - x.mean(1, keepdim=True)), "slicing it changes other channels"),
        (Do(lambda x: x.cumsum(1)), "slicing it changes other channels"),
    ],
)
def test_channels_that_cannot_be_sliced_are_left_alone(between: nn.Module, reason: str) -> None:
    groups, alone = make(Head(between))
    assert set(groups) == {"last"}
    assert reason in alone["first"]


def test_nothing_to_prune_is_an_error_that_says_why() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.stem(x).mean((2, 3)))

    with pytest.raises(ModelError, match=f"nothing in this network can be pruned. stem: {STEM}; linear: {OUTPUT}"):
        make(Two())


def test_no_groups_but_mixed_ones_is_the_same_error() -> None:
    model = Head(Do(lambda x: x.flip(1)))
    model.last, model.linear = nn.Conv2d(16, 5, 1), nn.Identity()
    with pytest.raises(ModelError, match=r"nothing in this network can be pruned.*first: slicing it changes"):
        make(model)


class Branches(nn.Module):
    """Two branches that are added up, with or without what they started from."""

    def __init__(self, identity: bool) -> None:
        super().__init__()
        self.stem, self.identity = nn.Conv2d(3, 8, 3), identity
        self.a = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 1))
        self.b = nn.Sequential(nn.Conv2d(8, 24, 1), nn.ReLU(), nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8))
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.a(x) + self.b(x)
        return self.linear((x + y if self.identity else y).mean((2, 3)))


def test_one_of_two_branches_must_stay() -> None:
    groups, _ = make(Branches(identity=False))
    assert [group.skippable for group in groups.values()] == [True, False]


def test_both_branches_may_go_where_the_input_is_added() -> None:
    groups, _ = make(Branches(identity=True))
    assert groups["a.0"].skippable
    assert groups["b.0"].skippable is False  # a(x) + b(x) is a sum that nothing varying would be left in


def test_a_branch_that_something_else_reads_is_not_skippable() -> None:
    class Tapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.tail = nn.Conv2d(3, 8, 3), nn.Linear(16, 5)
            self.up, self.down = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.up(x)
            return self.tail(y.mean((2, 3))) + (x + self.down(y)).mean((1, 2, 3))[:, None]

    groups, _ = make(Tapped())
    assert not groups["up"].skippable


def test_the_shortcut_may_multiply_instead_of_add() -> None:
    class Gated(Inverted):
        def forward(self, x: Tensor) -> Tensor:
            return x * self.project(self.expand(x))

    model = nn.Sequential(nn.Conv2d(3, 16, 3), Gated(16, 16, 32, False), nn.Flatten(), nn.Linear(16 * 14 * 14, 5))
    groups, _ = make(model)
    assert [group.skippable for group in groups.values()] == [False]


def test_channels_may_be_joined_with_what_came_of_them() -> None:
    class Ghost(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cheap = nn.Conv2d(16, 16, 3, padding=1, groups=16)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, F.relu(self.cheap(x))], 1)

    groups, _ = make(Head(Ghost(), width=32))
    assert set(groups) == {"first", "last"}
    (reader,) = (member for member in groups["first"].members if member.axis == "in")
    assert reader.runs == ((0, 0, 16, 1), (16, 0, 16, 1))


def test_efficient_channel_attention_is_left_alone_at_once() -> None:
    class Eca(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.weigh = nn.Conv2d(16, 1024, 1), nn.Conv1d(1, 1, 3, padding=1, bias=False)
            self.narrow = nn.Conv2d(1024, 16, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.wide(x)
            for _ in range(2):
                gate = self.weigh(y.mean((2, 3)).view(y.shape[0], 1, -1)).sigmoid()
                y = y * gate.view(y.shape[0], -1, 1, 1)
            return self.narrow(y)

    groups, alone = make(Head(Eca()))
    assert "between.narrow" in groups
    assert "between.weigh (Conv1d)" in alone["between.wide"]


class Parallel(nn.Module):
    """The sum of two convolutions of one input, and of the input itself if asked for."""

    def __init__(self, identity: bool) -> None:
        super().__init__()
        self.wide, self.narrow, self.identity = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1), identity

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x) + self.narrow(x)
        return F.relu(x + y if self.identity else y)


def test_parallel_convolutions_of_one_input_are_a_group_and_streams_are_none() -> None:
    groups, _ = make(Head(Parallel(identity=False), width=16))
    assert set(groups["between.wide"].layers("out")) == {"between.wide", "between.narrow"}
    groups, alone = make(Head(Parallel(identity=True), width=16))
    assert set(groups) == {"last"}
    assert alone["first"] == alone["between.wide"] == alone["between.narrow"] == RESIDUAL_STREAM
