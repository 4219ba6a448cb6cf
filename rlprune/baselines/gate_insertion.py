"""Inserts gates into a network: in front of channels, or of residual branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import fx, nn

from rlprune.baselines.gate_layers import LEAST_HIDDEN, ROOT, Branch, Gate, Mask
from rlprune.elastic.axes import Axis
from rlprune.elastic.channels import Group
from rlprune.errors import ModelError
from rlprune.graph.nodes import alive_nodes, attach
from rlprune.graph.traced import TracedNetwork


def insert_channel_gates(body: fx.GraphModule, groups: Sequence[Group], reduction: int, threshold: float) -> list[int]:
    """Give groups a gate that reads the input of the group's first layer; consumers read the masked channels.

    Channels that a norm takes together have none: what is hidden behind it would still count in its statistics.

    Args:
        body: an ordinary network, measured; it is changed in place, and then returns (logits, gate probabilities).
        groups: its channel groups.
        reduction: a gate has a hidden layer of its input channels over this.
        threshold: probability above which a channel or branch stays.

    Returns:
        Indices of the groups that have gates.

    Raises:
        ModelError: no group can have a gate, or the network has a module of the name under which gates are put.
    """
    _check_free(body)
    nodes = {node.target: node for node in body.graph.nodes if node.op == "call_module"}
    gated = {index: group for index, group in enumerate(groups) if not _is_normalised_whole(body, group)}
    if not gated:
        raise ModelError(
            "norms take the channels of every group together, so that none can be hidden; choose gates for branches"
        )
    gates = []
    for index, group in gated.items():
        first = nodes[group.name]
        gate = _insert_gate(body, index, group, first, first.args[0], group.n_channels, reduction)
        for member in (member for member in group.members if member.axis == "in"):
            consumer = nodes[member.layer]
            last = isinstance(body.get_submodule(member.layer), nn.Linear)
            size = consumer.args[0].meta["shape"][-1 if last else 1]
            name = f"{ROOT}.masks.{index}.{consumer.name}"
            attach(body, name, Mask(Axis(size, [(index, run) for run in member.runs]), index, threshold, last=last))
            with body.graph.inserting_before(consumer):
                masked = body.graph.call_module(name, (consumer.args[0], gate))
            masked.meta = dict(consumer.args[0].meta)
            consumer.update_arg(0, masked)
        gates.append(gate)
    _also_return(body, gates)
    return list(gated)


def _is_normalised_whole(body: fx.GraphModule, group: Group) -> bool:
    """Whether a norm's statistics are of all channels of a group together."""
    layers = [body.get_submodule(name) for name in group.layers("out")]
    return any(isinstance(each, nn.LayerNorm) or getattr(each, "num_groups", 0) == 1 for each in layers)


def insert_branch_gates(body: fx.GraphModule, groups: Sequence[Group], reduction: int, threshold: float) -> list[int]:
    """Give every branch that can be skipped a gate that reads the branch's input.

    Args:
        body: an ordinary network, measured; it is changed in place, and then returns (logits, gate probabilities).
        groups: its channel groups.
        reduction: a gate has a hidden layer of its input channels over this.
        threshold: probability above which a channel or branch stays.

    Returns:
        Indices of the groups whose branches have gates.

    Raises:
        ModelError: there is no such branch, or the network has a module of the name under which gates are put.
    """
    _check_free(body)
    parts = _branches(body, groups)
    if not parts:
        raise ModelError(
            "this network has no branch that gates could skip: one that ends in a single sum, reads only features, "
            "and is not inside another; choose gates for channels, which need no branch"
        )
    gates = []
    for index, part in parts.items():
        gate = _insert_gate(body, index, groups[index], part.inside[0], part.entries[0], 1, reduction)
        name = f"{ROOT}.branches.{index}"
        macs = sum(node.meta["macs"] for node in part.inside)
        attach(body, name, Branch(_extract(body, part), macs, threshold))
        with body.graph.inserting_before(part.end):
            branch = body.graph.call_module(name, (gate, *part.entries))
        branch.meta = dict(part.end.meta)
        part.end.replace_all_uses_with(branch)
        for node in reversed(part.inside):
            body.graph.erase_node(node)
        for other in parts.values():
            other.entries[:] = [branch if node is part.end else node for node in other.entries]
        gates.append(gate)
    body.delete_all_unused_submodules()
    _also_return(body, gates)
    return list(parts)


class _Part(NamedTuple):
    """A branch: nodes that only its last one, the end, is needed for outside, and the entries that they read."""

    inside: list[fx.Node]
    entries: list[fx.Node]
    end: fx.Node


def _branches(body: fx.GraphModule, groups: Sequence[Group]) -> dict[int, _Part]:
    """The branches that can be skipped image by image, by their group's index; of nested ones the first."""
    found: dict[int, _Part] = {}
    taken: set[fx.Node] = set()
    for index, group in enumerate(groups):
        if len(group.exits) != 1:
            continue
        (end,) = (node for node in body.graph.nodes if node.name == group.exits[0])
        needed = alive_nodes(body.graph, group.exits) - {end.name}
        inside = [node for node in body.graph.nodes if node.name not in needed and node.op != "placeholder"]
        entries = _entries(inside)
        per_image = all(node.op != "get_attr" and node.meta["shape"] is not None for node in entries)
        if entries and per_image and not taken.intersection(inside):
            found[index] = _Part(inside, entries, end)
            taken.update(inside)
    return found


def _entries(inside: Sequence[fx.Node]) -> list[fx.Node]:
    """The nodes outside that some nodes read, each once, in order."""
    sources = (source for node in inside for source in node.all_input_nodes)
    return list(dict.fromkeys(source for source in sources if source not in inside))


def _check_free(body: fx.GraphModule) -> None:
    if hasattr(body, ROOT):
        raise ModelError(f"the network has a module called {ROOT!r}, where gates would be put; rename it")


def _insert_gate(
    body: fx.GraphModule, index: int, group: Group, before: fx.Node, source: fx.Node, n_out: int, reduction: int
) -> fx.Node:
    """Insert a group's gate in front of a node."""
    last = isinstance(body.get_submodule(group.name), nn.Linear)
    name = f"{ROOT}.gates.{index}"
    n_in = source.meta["shape"][-1 if last else 1]
    device = next(body.get_submodule(group.name).parameters()).device
    attach(body, name, Gate(n_in, n_out, max(LEAST_HIDDEN, n_in // reduction), last=last, device=device))
    with body.graph.inserting_before(before):
        return body.graph.call_module(name, (source,))


def _extract(body: fx.GraphModule, part: _Part) -> fx.GraphModule:
    """A branch as a network of its own."""
    own = fx.Graph()
    copies = {node: own.placeholder(node.name) for node in part.entries}
    for node in part.inside:
        copies[node] = own.node_copy(node, lambda n: copies[n])
    own.output(copies[part.end])
    return TracedNetwork(body, own)


def _also_return(body: fx.GraphModule, gates: Sequence[fx.Node]) -> None:
    """Let a network return the results of its gates beside its logits."""
    (output,) = (node for node in body.graph.nodes if node.op == "output")
    output.args = ((output.args[0], tuple(gates)),)
    body.graph.lint()
    body.recompile()
