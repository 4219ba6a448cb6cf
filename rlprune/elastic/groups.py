"""Finds the channel groups of a network: those that can be pruned, and those that cannot, with the reason.

Torch-Pruning's dependency graph (Fang et al., "DepGraph", CVPR 2023) says which layers and operations depend on which;
`rlprune.elastic.joints` tells it where channels move. This module keeps the groups that can be sliced, and derives
which of them may vanish altogether.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import Tensor, fx, nn

from rlprune.elastic.axes import Run
from rlprune.elastic.channels import Group, Member, UnprunableLayer, is_sum, norm_behind, passes
from rlprune.elastic.coupling import Coupling, Item, Uncoupled
from rlprune.elastic.layers.kinds import axis_sizes, is_carrier, is_dense
from rlprune.graph.nodes import alive_nodes
from rlprune.utils.imports import require

_OUTPUT = "the network's output"


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
            items, n_channels = coupling.of(body.get_submodule(name), width)
        except Uncoupled as error:
            unprunable.append(UnprunableLayer(name, width, str(error)))
            continue
        producers = {names[layer] for layer, axis, *_ in items if axis == "out" and is_dense(layer) and layer in names}
        done |= producers
        allowed = residual or _read_one_input(body, producers)
        reason = _why_not(items, names, uses, n_channels, len(producers), allowed)
        if reason == _OUTPUT and not _reach_output(body, producers):
            reason = "no layer behind it reads its channels one by one"
        if n_channels == 1 < width:
            reason = reason or "all its channels are tied to each other, so none can go alone"
        if reason:
            unprunable += [UnprunableLayer(n, w, reason) for n, w in _dense_layers(body) if n in producers]
        else:
            groups.append(Group(name, n_channels, _members(items, names)))
    return _with_exits(body, groups), unprunable


def _read_one_input(body: fx.GraphModule, layers: Collection[str]) -> bool:
    """Whether layers all read the same: their sum is one layer in several parts, and no stream that blocks add to."""
    return len({node.args for node in body.graph.nodes if node.op == "call_module" and node.target in layers}) == 1


def _reach_output(body: fx.GraphModule, layers: Collection[str]) -> bool:
    """Whether what layers give gets to the output through no other layer that mixes channels."""
    calls = [node for node in body.graph.nodes if node.op == "call_module"]
    dense = [node for node in calls if is_dense(body.get_submodule(str(node.target)))]
    reached = alive_nodes(body.graph, [node.name for node in dense])
    return any(node.name in reached for node in dense if node.target in layers)


def _members(items: Sequence[Item], names: dict[nn.Module, str]) -> tuple[Member, ...]:
    """The axes of the body's layers among what channels run through."""
    axes = [item for item in items if item[0] in names]
    return tuple(Member(names[layer], axis, _runs(positions, channels)) for layer, axis, positions, channels, _ in axes)


def _dense_layers(network: fx.GraphModule) -> Iterator[tuple[str, int]]:
    called = dict.fromkeys(str(node.target) for node in network.graph.nodes if node.op == "call_module")
    for name in called:
        layer = network.get_submodule(name)
        if is_dense(layer):
            yield name, _axis_size(layer, "out")


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
    return "" if any(axis == "in" for _, axis, *_ in items) else _OUTPUT


def _why_not_item(item: Item, names: dict[nn.Module, str], uses: Sequence[Any], width: int) -> str:
    """Why a layer or operation keeps its group from being pruned, or an empty string if it does not."""
    layer, axis, positions, channels, operation = item
    if operation.startswith("ConstantPad"):
        return f"its channels are shifted on the way ({operation or type(layer).__name__})"
    if layer in names or isinstance(layer, nn.Parameter):
        reason = _why_not_layer(layer, names, uses)
        if reason:
            return reason
        if max(positions) >= _axis_size(layer, axis) or not _even(channels, width):
            return f"its channels do not line up with those of {names[layer]}"
    elif isinstance(layer, nn.Module) and any(True for _ in layer.parameters()):
        return "shared with the stem, which the policy reads"
    return ""


def _why_not_layer(layer: nn.Module | nn.Parameter, names: dict[nn.Module, str], uses: Sequence[Any]) -> str:
    if isinstance(layer, nn.Parameter):
        return "it meets a free parameter, which has no known channel axis"
    if not (is_dense(layer) or is_carrier(layer)):
        return f"{names[layer]} ({type(layer).__name__}) is no layer of a kind that can be pruned"
    if uses.count(names[layer]) > 1:
        return f"{names[layer]} is called more than once"
    if names[layer] not in uses:
        return f"{names[layer]} is inside a layer that torch.fx cannot trace"
    return ""


def _even(channels: Sequence[int], n_channels: int) -> bool:
    """Whether each of a group's channels is there, and as often as any other."""
    counts = Counter(channels)
    return len(counts) == n_channels and len(set(counts.values())) == 1


def _axis_size(layer: nn.Module, axis: str) -> int:
    sizes = axis_sizes(layer)
    assert sizes is not None
    return sizes[0] if axis == "in" else sizes[1]


def _runs(positions: Sequence[int], channels: Sequence[int]) -> tuple[Run, ...]:
    """Compress (position, channel) pairs into runs, in the order of the positions."""
    runs: list[Run] = []
    for block in _blocks(sorted(zip(positions, channels, strict=True))):
        last = runs[-1] if runs else None
        if last is not None and _continues(last, block):
            runs[-1] = last._replace(n_channels=last.n_channels + 1)
        else:
            runs.append(block)
    return tuple(runs)


def _continues(run: Run, block: Run) -> bool:
    """Whether a block holds the channel behind those of a run, as often and right behind them."""
    behind = run.start + run.n_channels * run.repeat, run.channel + run.n_channels, run.repeat
    return (block.start, block.channel, block.repeat) == behind


def _blocks(pairs: Sequence[tuple[int, int]]) -> Iterator[Run]:
    """Runs of a single channel each: consecutive positions that hold it."""
    block: Run | None = None
    for position, channel in pairs:
        if block and (position, channel) == (block.start + block.repeat, block.channel):
            block = block._replace(repeat=block.repeat + 1)
            continue
        if block:
            yield block
        block = Run(position, channel, 1, 1)
    if block:
        yield block


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
    """The ends of branches, whose results go only into sums: of the consumers, what is right behind them included."""
    consumers = group.layers("in")
    exits = []
    for node in body.graph.nodes:
        if node.op != "call_module" or node.target not in consumers:
            continue
        end = _end(body, norm_behind(body, node) or node)
        if end is not None and _consumes_only(body.get_submodule(node.target), group, node.target):
            exits.append(end.name)
    return tuple(dict.fromkeys(exits))


def _end(body: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Where a branch ends that a layer leads to: there, or behind gates, layer scales, drop path and the like."""
    last = node
    while not _ends_in_sums(last):
        following = _following(body, last)
        if following is None:
            return None
        last = following
    plain = last is node or all(len(user.args) == 2 and not user.kwargs for user in last.users)
    return last if plain else None


def _following(body: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The next node that reads a node through operations which pass its values on, and that it is needed for alone."""
    reached = [node]
    for source in reached:
        for user in source.users:
            if user in reached or not passes(body, node, user):
                continue
            if node.name not in alive_nodes(body.graph, (user.name,)):
                return user
            reached.append(user)
    return None


def _ends_in_sums(node: fx.Node) -> bool:
    """Whether only sums of the node's own shape read it."""
    shape = node.meta["shape"]
    return bool(node.users) and all(is_sum(user) and user.meta["shape"] == shape for user in node.users)


def _consumes_only(layer: nn.Module, group: Group, name: str) -> bool:
    (member,) = (m for m in group.members if m.layer == name and m.axis == "in")
    return sum(run.n_channels * run.repeat for run in member.runs) == _axis_size(layer, "in")


def _connected(graph: fx.Graph, constants: Collection[str]) -> bool:
    """Whether every sum that loses a summand keeps one of full size, and the output still depends on the input."""
    varying: set[fx.Node] = set()
    for node in graph.nodes:
        if node.name not in constants and (node.op == "placeholder" or varying.intersection(node.all_input_nodes)):
            varying.add(node)
        if is_sum(node) and not _keeps_a_summand(node, constants, varying):
            return False
    return any(node.op == "output" and node in varying for node in graph.nodes)


def _keeps_a_summand(node: fx.Node, constants: Collection[str], varying: set[fx.Node]) -> bool:
    """Whether a sum loses no summand to the constants, or keeps a varying one of its own shape."""
    summands = node.all_input_nodes
    if not any(source.name in constants for source in summands):
        return True
    return any(source in varying and source.meta["shape"] == node.meta["shape"] for source in summands)
