"""Channel groups as data: which layers hold a group's channels, and which layers are left alone."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx, nn

from rlprune.elastic.axes import Run

_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm2d, nn.BatchNorm1d)

RESOLUTION = "resolution"
"""Name of the group that stands for it."""
_ADDITIONS = (operator.add, torch.add, "add")
_GATES = ("sigmoid", "softmax", "tanh")
"""Parts of the names of operations whose results are factors of something else, not the values of a branch."""


@dataclass(frozen=True)
class Member:
    """One axis of one layer that holds a group's channels; `in` is the axis of a layer that consumes them."""

    layer: str
    axis: Literal["in", "out"]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Group:
    """Channels that live or die together; or the rows of the features behind the stem, that is their resolution.

    Attributes:
        name: name of the first layer that produces the channels; or `resolution`.
        n_channels: number of channels; those that can only be kept together, such as all of one convolution group,
            count as one.
        members: every axis that holds the channels; none for the resolution.
        exits: nodes of the graph that are no longer needed when the whole group is dropped; empty if it may not be. A
            layer leaves its bias in the sums behind it; any other node leaves nothing.
    """

    name: str
    n_channels: int
    members: tuple[Member, ...]
    exits: tuple[str, ...] = ()

    @property
    def skippable(self) -> bool:
        """Whether the group may go to level 0, its branch dropping out of a residual sum."""
        return bool(self.exits)

    @property
    def is_resolution(self) -> bool:
        """Whether these are no channels, but the rows of the features behind the stem."""
        return not self.members

    @property
    def layer_channels(self) -> int:
        """How many channels of the layers each of the group's stands for: 1, or as many as are tied together."""
        if self.is_resolution:
            return 1
        held = [sum(run.n_channels * run.repeat for run in member.runs) for member in self.members]
        return min(held) // self.n_channels

    def layers(self, axis: Literal["in", "out"]) -> tuple[str, ...]:
        """Names of the layers that hold the group on this axis: `in` consumes it, `out` produces or carries it."""
        return tuple(member.layer for member in self.members if member.axis == axis)


@dataclass(frozen=True)
class UnprunableLayer:
    """A layer whose output channels are not pruned, and why."""

    name: str
    n_channels: int
    reason: str


def resolution_of(feature_shape: Sequence[int]) -> Group:
    """The group that stands for the resolution of a stem's features (F, H', W')."""
    return Group(RESOLUTION, feature_shape[1], ())


def norm_behind(body: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The batch norm that is the only reader of a node, if there is one."""
    users = list(node.users)
    if len(users) == 1 and users[0].op == "call_module" and type(body.get_submodule(str(users[0].target))) in _NORMS:
        return users[0]
    return None


def passes(body: fx.GraphModule, node: fx.Node, user: fx.Node) -> bool:
    """Whether a node gives as many values as another one, and is no sum, no gate and no layer with weights."""
    if user.op not in ("call_function", "call_method", "call_module") or is_sum(user) or not same_size(node, user):
        return False
    layer = body.get_submodule(str(user.target)) if user.op == "call_module" else None
    name = str(getattr(user.target, "__name__", user.target)) if layer is None else type(layer).__name__
    has_weights = layer is not None and any(True for _ in layer.parameters())
    return not has_weights and not any(gate in name.lower() for gate in _GATES)


def same_size(a: fx.Node, b: fx.Node) -> bool:
    """Whether two nodes give equally many values, as `rlprune.graph.nodes.measure` found."""
    shapes = a.meta["shape"], b.meta["shape"]
    return None not in shapes and math.prod(shapes[0]) == math.prod(shapes[1])


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds two things up."""
    return node.op in ("call_function", "call_method") and node.target in _ADDITIONS
