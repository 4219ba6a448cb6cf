"""Gates inside a network: small networks that tell from a layer's input what of the layer an image needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rlprune import graph
from rlprune.axes import Axis
from rlprune.errors import ModelError
from rlprune.groups import Group

GateKind = Literal["channels", "branches"]
KINDS: tuple[str, ...] = get_args(GateKind)
_START = 1.0
"""Bias that gates begin with: all of them open."""
ROOT = "gating"
"""Where gates, and what they act through, are put into a network."""
_LEAST_HIDDEN = 4
"""Features inside the smallest gates."""


class Gate(nn.Module):
    """Squeeze and excite: an average over positions, two linear layers, a sigmoid.

    (Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018. It reads what a layer reads, and speaks of what it makes.)

    Args:
        n_in: channels of the layer's input.
        n_out: how many values to give, one for each channel that the layer makes, or one for a whole branch.
        n_hidden: features between.
        last: whether the input's channels are its last dimension, as a linear layer's are, not its second.
    """

    def __init__(self, n_in: int, n_out: int, n_hidden: int, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.reduce, self.expand = nn.Linear(n_in, n_hidden), nn.Linear(n_hidden, n_out)
        nn.init.constant_(self.expand.bias, _START)

    def forward(self, x: Tensor) -> Tensor:
        """A layer's input (B, C, ...) -> how much each is wanted, in (0, 1), float32 (B, n_out)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float().movedim(-1, 1) if self.last else x.float()
            pooled = x.flatten(2).mean(2) if x.ndim > 2 else x
            wanted: Tensor = self.expand(F.relu(self.reduce(pooled))).sigmoid()
        return wanted


def opened(wanted: Tensor, threshold: float) -> Tensor:
    """1 where a gate passes its threshold, else 0; its gradient is handed straight through (Bengio et al., 2013)."""
    hard = (wanted > threshold).to(wanted.dtype)
    return hard + (wanted - wanted.detach())  # in this order exactly 0 or 1


class Gated(nn.Module):
    """What gates act through.

    Attributes:
        threshold: what a gate has to pass.
        soft: whether everything runs, weighted by what the gates say, instead of what passes.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold, self.soft = threshold, False


class Mask(Gated):
    """Hides channels that are not wanted from the layer that would read them.

    Args:
        axis: the channels that the layer reads.
        group: index of the group that is gated.
        threshold: what a gate has to pass.
        last: whether the channels are the last dimension, not the second.
    """

    channel: Tensor

    def __init__(self, axis: Axis, group: int, threshold: float, *, last: bool) -> None:
        super().__init__(threshold)
        self.last = last
        channel = torch.where(axis.group == group, axis.channel, -1)
        self.register_buffer("channel", channel, persistent=False)

    def forward(self, x: Tensor, wanted: Tensor) -> Tensor:
        """Apply what gates of the group want, (B, channels), to x (B, C, ...)."""
        mask = wanted if self.soft else opened(wanted, self.threshold)
        mask = F.pad(mask, (0, 1), value=1.0)[:, self.channel]  # -1, the last: channels of other groups
        inner = (1,) * (x.ndim - 2)
        return x * mask.to(x.dtype).view((len(mask), *inner, -1) if self.last else (*mask.shape, *inner))


class Branch(Gated):
    """A branch that is weighted by its gate, and runs only for images whose gate passes.

    Args:
        body: inputs (B, ...) -> what it adds to a sum.
        macs: multiply-adds of that for one image.
        threshold: what a gate has to pass.
    """

    def __init__(self, body: fx.GraphModule, macs: int, threshold: float) -> None:
        super().__init__(threshold)
        self.body, self.macs = body, macs

    def forward(self, wanted: Tensor, *inputs: Tensor) -> Tensor:
        """What the branch adds, given how much its gate wants it, (B, 1); in training it runs for all images."""
        weight = wanted if self.soft else wanted * opened(wanted, self.threshold)
        if self.training or self.soft:
            return self._weighted(weight, inputs)
        runs = weight[:, 0].nonzero().flatten()
        if len(runs) == len(weight):
            return self._weighted(weight, inputs)
        if not len(runs):
            return inputs[0].new_zeros(())
        some = self._weighted(weight[runs], [x[runs] for x in inputs])
        return some.new_zeros(len(weight), *some.shape[1:]).index_copy(0, runs, some)

    def _weighted(self, weight: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        made: Tensor = self.body(*inputs)
        return made * weight.to(made.dtype).view(-1, *(1,) * (made.ndim - 1))


def insert_channel_gates(body: fx.GraphModule, groups: Sequence[Group], reduction: int, threshold: float) -> list[int]:
    """Give every group a gate that reads what the group's first layer reads; its consumers see what it lets pass.

    Args:
        body: an ordinary network, measured; it is changed in place, and then returns (logits, what each gate wants).
        groups: its channel groups.
        reduction: channels that a gate reads, over the features inside it.
        threshold: what a gate has to pass.

    Returns:
        Indices of the groups that have gates: all of them.

    Raises:
        ModelError: the network has modules where gates would be put.
    """
    _check_free(body)
    nodes = {node.target: node for node in body.graph.nodes if node.op == "call_module"}
    gates = []
    for index, group in enumerate(groups):
        first = nodes[group.name]
        gate = _insert_gate(body, index, group, first, first.args[0], group.n_channels, reduction)
        for member in (member for member in group.members if member.axis == "in"):
            consumer = nodes[member.layer]
            last = isinstance(body.get_submodule(member.layer), nn.Linear)
            size = consumer.args[0].meta["shape"][-1 if last else 1]
            name = f"{ROOT}.masks.{index}.{consumer.name}"
            graph.attach(
                body, name, Mask(Axis(size, [(index, run) for run in member.runs]), index, threshold, last=last)
            )
            with body.graph.inserting_before(consumer):
                masked = body.graph.call_module(name, (consumer.args[0], gate))
            masked.meta = dict(consumer.args[0].meta)
            consumer.update_arg(0, masked)
        gates.append(gate)
    _also_return(body, gates)
    return list(range(len(groups)))


def insert_branch_gates(body: fx.GraphModule, groups: Sequence[Group], reduction: int, threshold: float) -> list[int]:
    """Give every branch that can be skipped a gate that reads what the branch reads.

    Args:
        body: an ordinary network, measured; it is changed in place, and then returns (logits, what each gate wants).
        groups: its channel groups.
        reduction: channels that a gate reads, over the features inside it.
        threshold: what a gate has to pass.

    Returns:
        Indices of the groups whose branches have gates.

    Raises:
        ModelError: there is no such branch, or the network has modules where gates would be put.
    """
    _check_free(body)
    parts = _branches(body, groups)
    if not parts:
        raise ModelError(
            "this network has no branch that gates could skip: one that ends in a single sum, reads nothing but "
            "features, and is not inside another; gates for channels need none"
        )
    gates = []
    for index, part in parts.items():
        gate = _insert_gate(body, index, groups[index], part.inside[0], part.entries[0], 1, reduction)
        name = f"{ROOT}.branches.{index}"
        macs = sum(node.meta["macs"] for node in part.inside)
        graph.attach(body, name, Branch(_cut_out(body, part), macs, threshold))
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
    """Nodes of a network that nothing needs but one of them, the end, and those that they start from."""

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
        needed = graph.alive_nodes(body.graph, group.exits) - {end.name}
        inside = [node for node in body.graph.nodes if node.name not in needed and node.op != "placeholder"]
        entries = list(
            dict.fromkeys(source for node in inside for source in node.all_input_nodes if source not in inside)
        )
        per_image = all(node.op != "get_attr" and node.meta["shape"] is not None for node in entries)
        if entries and per_image and not taken.intersection(inside):
            found[index] = _Part(inside, entries, end)
            taken.update(inside)
    return found


def _check_free(body: fx.GraphModule) -> None:
    if hasattr(body, ROOT):
        raise ModelError(f"the network has a module called {ROOT!r}, where gates would be put; rename it")


def _insert_gate(
    body: fx.GraphModule, index: int, group: Group, before: fx.Node, source: fx.Node, n_out: int, reduction: int
) -> fx.Node:
    """A gate in front of a node."""
    last, name = isinstance(body.get_submodule(group.name), nn.Linear), f"{ROOT}.gates.{index}"
    n_in = source.meta["shape"][-1 if last else 1]
    graph.attach(body, name, Gate(n_in, n_out, max(_LEAST_HIDDEN, n_in // reduction), last=last))
    with body.graph.inserting_before(before):
        return body.graph.call_module(name, (source,))


def _cut_out(body: fx.GraphModule, part: _Part) -> fx.GraphModule:
    """Some nodes of a network as a network of their own."""
    own = fx.Graph()
    copies = {node: own.placeholder(node.name) for node in part.entries}
    for node in part.inside:
        copies[node] = own.node_copy(node, lambda n: copies[n])
    own.output(copies[part.end])
    return fx.GraphModule(body, own)


def _also_return(body: fx.GraphModule, gates: Sequence[fx.Node]) -> None:
    (output,) = (node for node in body.graph.nodes if node.op == "output")
    output.args = ((output.args[0], tuple(gates)),)
    body.graph.lint()
    body.recompile()
