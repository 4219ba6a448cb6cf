"""Finds the channel groups of a network: those that can be pruned, and those that cannot, with the reason.

Torch-Pruning's dependency graph (Fang et al., "DepGraph", CVPR 2023) finds what is coupled. This module keeps
the groups that can be sliced, and derives which of them may vanish altogether.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from rlprune.elastic.axes import Run
from rlprune.elastic.coupling import Coupling, Item, Uncoupled, is_dense, is_depthwise
from rlprune.graph.nodes import alive_nodes
from rlprune.utils.imports import require

_ADDITIONS = (operator.add, torch.add, "add")
_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm2d, nn.BatchNorm1d)


@dataclass(frozen=True)
class Member:
    """One axis of one layer that holds a group's channels; `in` is the axis of a layer that consumes them."""

    layer: str
    axis: Literal["in", "out"]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Group:
    """Channels that live or die together.

    Attributes:
        name: name of the first layer that produces the channels.
        n_channels: number of channels.
        members: every axis that holds the channels.
        exits: nodes of the graph that become a constant when the whole group is dropped; empty if it may not be.
    """

    name: str
    n_channels: int
    members: tuple[Member, ...]
    exits: tuple[str, ...] = ()

    @property
    def skippable(self) -> bool:
        """Whether the group may go to level 0, its branch dropping out of a residual sum."""
        return bool(self.exits)

    def layers(self, axis: Literal["in", "out"]) -> tuple[str, ...]:
        """Names of the layers that hold the group on this axis: `in` consumes it, `out` produces or carries it."""
        return tuple(member.layer for member in self.members if member.axis == axis)


@dataclass(frozen=True)
class UnprunableLayer:
    """A layer whose output channels are not pruned, and why."""

    name: str
    n_channels: int
    reason: str


def find_groups(
    stem: fx.GraphModule, body: fx.GraphModule, example: Tensor, *, residual: bool = False
) -> tuple[list[Group], list[UnprunableLayer]]:
    """Find the channel groups of a network.

    Args:
        stem: what runs before the body; it is never pruned.
        body: the traced network behind the stem, measured (`rlprune.graph.nodes.measure`).
        example: one input of the stem, float32 (1, C, H, W).
        residual: also the channels of residual streams, which many blocks share.

    Returns:
        The groups in the order of their producers, and the layers that cannot be pruned.

    Raises:
        ModelError: Torch-Pruning fails on the network.
    """
    coupling = Coupling(nn.Sequential(stem, body), example, require("torch_pruning"))
    names = {module: name for name, module in body.named_modules(remove_duplicate=False)}
    uses = [node.target for node in body.graph.nodes if node.op == "call_module"]
    groups: list[Group] = []
    unprunable = [UnprunableLayer(name, width, "stem: the policy reads it") for name, width in _dense_layers(stem)]
    done: set[str] = set()
    for name, width in _dense_layers(body):
        if name in done:
            continue
        try:
            items = coupling.of(body.get_submodule(name), width)
        except Uncoupled as error:
            unprunable.append(UnprunableLayer(name, width, str(error)))
            continue
        producers = {names[layer] for layer, axis, *_ in items if axis == "out" and is_dense(layer) and layer in names}
        done |= producers
        reason = _why_not(items, names, uses, width, len(producers), residual)
        if reason:
            unprunable += [UnprunableLayer(n, w, reason) for n, w in _dense_layers(body) if n in producers]
        else:
            groups.append(Group(name, width, _members(items, names)))
    return _with_exits(body, groups), unprunable


def _members(items: Sequence[Item], names: dict[nn.Module, str]) -> tuple[Member, ...]:
    """The axes of the body's layers among what channels run through."""
    axes = [item for item in items if item[0] in names]
    return tuple(Member(names[layer], axis, _runs(positions, channels)) for layer, axis, positions, channels, _ in axes)


def _dense_layers(network: fx.GraphModule) -> Iterator[tuple[str, int]]:
    for node in network.graph.nodes:
        layer = network.get_submodule(node.target) if node.op == "call_module" else None
        if layer is not None and is_dense(layer):
            yield node.target, _axis_size(layer, "out")


def _why_not(
    items: Sequence[Item],
    names: dict[nn.Module, str],
    uses: Sequence[Any],
    width: int,
    n_producers: int,
    residual: bool,
) -> str:
    """Why a group cannot be pruned, or an empty string if it can."""
    added = any(operation.startswith(("AddBackward", "SubBackward")) for *_, operation in items)
    if n_producers > 1 and added and not residual:
        return "residual stream: pruned only with residual=True"
    for item in items:
        reason = _why_not_item(item, names, uses, width)
        if reason:
            return reason
    return "" if any(axis == "in" for _, axis, *_ in items) else "the network's output"


def _why_not_item(item: Item, names: dict[nn.Module, str], uses: Sequence[Any], width: int) -> str:
    """Why a layer or operation keeps its group from being pruned, or an empty string if it does not."""
    layer, axis, positions, channels, operation = item
    if operation.startswith("ConstantPad") or len(set(positions)) != len(positions):
        return f"its channels are shifted on the way ({operation or type(layer).__name__})"
    if layer in names or isinstance(layer, nn.Parameter):
        reason = _why_not_layer(layer, names, uses)
        if reason:
            return reason
        if max(positions) >= _axis_size(layer, axis) or set(channels) != set(range(width)):
            return f"its channels do not line up with those of {names[layer]}"
    elif isinstance(layer, nn.Module) and any(True for _ in layer.parameters()):
        return "shared with the stem, which the policy reads"
    return ""


def _why_not_layer(layer: nn.Module | nn.Parameter, names: dict[nn.Module, str], uses: Sequence[Any]) -> str:
    if isinstance(layer, nn.Parameter):
        return "it meets a free parameter, which has no known channel axis"
    if not (is_dense(layer) or is_depthwise(layer) or type(layer) in _NORMS):
        return (
            f"{names[layer]} ({type(layer).__name__}) is no dense or depthwise convolution, linear layer or batch norm"
        )
    if uses.count(names[layer]) > 1:
        return f"{names[layer]} is called more than once"
    if names[layer] not in uses:
        return f"{names[layer]} is inside a layer that torch.fx cannot trace"
    return ""


def _axis_size(layer: nn.Module, axis: str) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features if axis == "in" else layer.out_features
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels if axis == "in" else layer.out_channels
    assert isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d)
    return layer.num_features


def _runs(positions: Sequence[int], channels: Sequence[int]) -> tuple[Run, ...]:
    """Compress (position, channel) pairs into runs, in the order of the positions."""
    pairs = sorted(zip(positions, channels, strict=True))
    repeat = 1
    while repeat < len(pairs) and pairs[repeat][1] == pairs[0][1]:
        repeat += 1
    runs: list[Run] = []
    for position, channel in pairs[::repeat]:
        last = runs[-1] if runs else None
        if last and (position, channel) == (last.start + last.n_channels * repeat, last.channel + last.n_channels):
            runs[-1] = last._replace(n_channels=last.n_channels + 1)
        else:
            runs.append(Run(position, channel, 1, repeat))
    expanded = [(run.start + i, run.channel + i // repeat) for run in runs for i in range(run.n_channels * repeat)]
    assert expanded == pairs, "channels that repeat unevenly"
    return tuple(runs)


def _with_exits(body: fx.GraphModule, groups: list[Group]) -> list[Group]:
    """Mark the groups that may be dropped: their consumers end in sums that stay connected without them."""
    marked: list[Group] = []
    dropped: set[str] = set()
    for group in groups:
        exits = _exits(body, group)
        dies = set(group.layers("out")) | set(group.layers("in"))
        alive = alive_nodes(body.graph, exits)
        left = {node.target for node in body.graph.nodes if node.name in alive and node.name not in exits}
        if exits and not dies & left and _connected(body.graph, dropped | set(exits)):
            dropped |= set(exits)
            group = Group(group.name, group.n_channels, group.members, exits)
        marked.append(group)
    return marked


def _exits(body: fx.GraphModule, group: Group) -> tuple[str, ...]:
    """The consumers, or the norms right behind them, whose results go only into sums."""
    consumers = group.layers("in")
    exits = []
    for node in body.graph.nodes:
        if node.op != "call_module" or node.target not in consumers:
            continue
        end = norm_behind(body, node) or node
        if _consumes_only(body.get_submodule(node.target), group, node.target) and _ends_in_sums(end):
            exits.append(end.name)
    return tuple(exits)


def _ends_in_sums(node: fx.Node) -> bool:
    """Whether only sums of the node's own shape read it."""
    shape = node.meta["shape"]
    return bool(node.users) and all(_is_sum(user) and user.meta["shape"] == shape for user in node.users)


def _consumes_only(layer: nn.Module, group: Group, name: str) -> bool:
    (member,) = (m for m in group.members if m.layer == name and m.axis == "in")
    return sum(run.n_channels * run.repeat for run in member.runs) == _axis_size(layer, "in")


def _is_sum(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and node.target in _ADDITIONS


def norm_behind(body: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The batch norm that is the only reader of a node, if there is one."""
    users = list(node.users)
    if len(users) == 1 and users[0].op == "call_module" and type(body.get_submodule(str(users[0].target))) in _NORMS:
        return users[0]
    return None


def _connected(graph: fx.Graph, constants: Collection[str]) -> bool:
    """Whether every sum that loses a summand keeps one of full size, and the output still depends on the input."""
    varying: set[fx.Node] = set()
    for node in graph.nodes:
        if node.name not in constants and (node.op == "placeholder" or varying.intersection(node.all_input_nodes)):
            varying.add(node)
        if _is_sum(node) and not _keeps_a_summand(node, constants, varying):
            return False
    return any(node.op == "output" and node in varying for node in graph.nodes)


def _keeps_a_summand(node: fx.Node, constants: Collection[str], varying: set[fx.Node]) -> bool:
    """Whether a sum loses no summand to the constants, or keeps a varying one of its own shape."""
    summands = node.all_input_nodes
    if not any(source.name in constants for source in summands):
        return True
    return any(source in varying and source.meta["shape"] == node.meta["shape"] for source in summands)
