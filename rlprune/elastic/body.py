"""The traced body of an elastic network: run under keep levels, and the subnet of one profile extracted from it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import Any

from torch import Tensor, fx, nn

from rlprune.elastic.axes import Axis
from rlprune.elastic.channels import Group, is_sum, norm_behind
from rlprune.elastic.layers.activations import ElasticPReLU
from rlprune.elastic.layers.base import Choice, ElasticLayer
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.elastic.layers.dense import ElasticConv2d, ElasticConvTranspose2d, ElasticLinear
from rlprune.elastic.layers.group_norms import ElasticGroupNorm, ElasticInstanceNorm2d, ElasticLayerNorm
from rlprune.elastic.layers.kinds import axis_sizes
from rlprune.elastic.layers.resolution import shrinking
from rlprune.errors import ModelError
from rlprune.graph import nodes
from rlprune.graph.traced import TracedNetwork


class BodyInterpreter(fx.Interpreter):
    """Runs the body without the nodes that only dropped groups need.

    Args:
        body: graph of elastic layers.
        exits: names of the nodes that are not needed, because the groups they consume are dropped.
        groups: the channel groups that run through it.
    """

    def __init__(self, body: fx.GraphModule, exits: frozenset[str], groups: Sequence[Group]) -> None:
        super().__init__(body)
        self.exits = exits
        self.silent = silent_exits(body, groups)
        self.gone = exits.intersection(self.silent)
        self.alive = nodes.alive_nodes(body.graph, exits)
        self.choice: Choice | None = None

    def under(self, choice: Choice, features: Tensor) -> Any:
        """The logits (B, classes) of features (B, F, H', W') under a choice that drops the groups behind `exits`."""
        self.choice = choice
        logits = self.run(features)
        self.env = {}  # otherwise it would keep the logits, and the autograd graph behind them, alive
        return logits

    def run_node(self, n: fx.Node) -> Any:
        """The node's result: None if nothing needs it, a constant for the layers among exits."""
        assert self.choice is not None
        if n.op != "placeholder" and n.name not in self.alive:
            return None
        if n.name in self.exits:
            return None if n.name in self.gone else _constant(self.module, n, self.choice)
        only = _only_summand(n, self.gone)
        if only is not None:
            return self.env[only]
        result = super().run_node(n)
        return self._without_dropped(n.name, result) if n.name in self.silent else result

    def _without_dropped(self, name: str, result: Tensor) -> Tensor:
        """What a silent exit gives, float (B, ...), and 0 for images that drop its branch."""
        assert self.choice is not None
        if self.choice.profile is not None:
            return result
        gone = (self.choice.widths[:, self.silent[name]] == 0).any(1)
        return result.masked_fill(gone.view(-1, *(1,) * (result.ndim - 1)), 0)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The layer's result; elastic layers also get the choice."""
        layer = self.fetch_attr(target)
        return layer(*args, self.choice) if isinstance(layer, ElasticLayer) else layer(*args, **kwargs)


def silent_exits(body: fx.GraphModule, groups: Sequence[Group]) -> dict[str, list[int]]:
    """The exits that are no layers, and so leave nothing in sums, each with the groups whose branches end there.

    Args:
        body: graph of elastic layers.
        groups: the channel groups that run through it.
    """
    silent: dict[str, list[int]] = {}
    layers = {node.name for node in body.graph.nodes if is_elastic(body, node)}
    for index, group in enumerate(groups):
        for name in group.exits:
            if name not in layers:
                silent.setdefault(name, []).append(index)
    return silent


def changed_cost(body: fx.GraphModule, narrow: Callable[[], nn.Module], features: Tensor) -> str:
    """The first operation that is no elastic layer, and yet takes other MACs where layers are narrow.

    Of layers it is known what they cost for each number of channels; of a product of features it is not.

    Args:
        body: measured graph of elastic layers.
        narrow: makes a part of it, with narrower layers.
        features: what the body is run on, (1, F, H', W').

    Returns:
        Its name; empty if there is none, or the part does not run.
    """
    calls = [node for node in body.graph.nodes if node.meta.get("macs") and not is_elastic(body, node)]
    whole = {node.name: node.meta["macs"] for node in calls}
    if not whole:
        return ""
    part = narrow()
    assert isinstance(part, fx.GraphModule)
    try:
        nodes.measure(part, features)
    except ModelError:
        return ""
    changed = (n for n in part.graph.nodes if n.meta["macs"] != whole.get(n.name, n.meta["macs"]))
    return next((str(n.target) if n.op == "call_module" else n.name for n in changed), "")


def is_elastic(body: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node calls a layer that has a width."""
    return node.op == "call_module" and isinstance(body.get_submodule(str(node.target)), ElasticLayer)


def _only_summand(node: fx.Node, gone: Collection[str]) -> fx.Node | None:
    """What is left of a sum that loses a summand: the other one. None for any other node."""
    if not gone or not is_sum(node) or not any(source.name in gone for source in node.all_input_nodes):
        return None
    (left,) = (source for source in node.all_input_nodes if source.name not in gone)
    return left


def extract_subnet(
    body: fx.GraphModule, choice: Choice, exits: frozenset[str], resolution: float = 1.0
) -> fx.GraphModule:
    """The part of a body that one profile keeps, as ordinary layers with copies of its weights.

    Args:
        body: graph of elastic layers.
        choice: of one profile.
        exits: names of the nodes that are not needed, because the groups they consume are dropped.
        resolution: share of the features' positions that it keeps; they are shrunk first.
    """
    alive = nodes.alive_nodes(body.graph, exits)
    gone = {node.name for node in body.graph.nodes if node.name in exits and not is_elastic(body, node)}
    root = nn.Module()
    new_graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in body.graph.nodes:
        if node.name in gone or (node.op != "placeholder" and node.name not in alive):
            continue
        only = _only_summand(node, gone)
        if only is not None:
            copies[node] = copies[only]
            continue
        if node.name in exits:
            name = f"{node.name}_constant"
            nodes.attach(root, name, nn.Parameter(_constant(body, node, choice).detach().clone()))
            copies[node] = new_graph.get_attr(name)
            continue
        copies[node] = new_graph.node_copy(node, lambda n: copies[n])
        if node.op == "placeholder" and resolution < 1:
            function, arguments = shrinking(resolution)
            copies[node] = new_graph.call_function(function, (copies[node],), arguments)
        if node.op == "call_module":
            layer = body.get_submodule(node.target)
            plain = layer.plain(choice) if isinstance(layer, ElasticLayer) else copy.deepcopy(layer)
            nodes.attach(root, node.target, plain)
        elif node.op == "get_attr":
            nodes.attach(root, node.target, copy.deepcopy(_attribute(body, node.target)))
    return TracedNetwork(root, new_graph)


def _constant(body: nn.Module, node: fx.Node, choice: Choice) -> Tensor:
    """A layer's result when the group it consumes is dropped, shaped to be added: (1, C, 1, ...)."""
    assert isinstance(node.target, str)
    layer = body.get_submodule(node.target)
    assert isinstance(layer, ElasticLayer)
    value = layer.constant(choice)
    inner = (1,) * (len(node.meta["shape"]) - 2)
    return value.view(1, -1, *inner)


def _attribute(root: nn.Module, name: str) -> Tensor:
    owner, _, leaf = name.rpartition(".")
    value = getattr(root.get_submodule(owner), leaf)
    assert isinstance(value, Tensor)
    return value


def replace_layers(body: fx.GraphModule, groups: Sequence[Group], n_levels: int, *, drops: bool) -> None:
    """Replace a body's layers that may hold channels of groups in place by elastic ones.

    Args:
        body: the graph, changed in place.
        groups: the channel groups that run through it.
        n_levels: number of keep levels, for which batch norms keep statistics.
        drops: whether level 0 keeps no channel, so that the norms at the ends of branches become constants.
    """
    consumed_by: dict[str, int | None] = {}
    device = next((parameter.device for parameter in body.parameters()), None)
    for node in [node for node in body.graph.nodes if node.op == "call_module"]:
        name = str(node.target)
        layer = body.get_submodule(name)
        elastic: ElasticLayer | None
        if type(layer) is nn.BatchNorm2d or type(layer) is nn.BatchNorm1d:
            consumed = consumed_by.get(name)
            dropped = drops and consumed is not None and node.name in groups[consumed].exits
            out_axis = _axis(groups, name, "out", layer.num_features)
            switch = out_axis.only_group if consumed is None else consumed
            elastic = ElasticBatchNorm(layer, out_axis, switch, n_levels, dropped, device)
        else:
            elastic = _elastic(layer, name, groups)
        if elastic is None:
            continue
        behind = norm_behind(body, node)
        if behind is not None:
            consumed_by[str(behind.target)] = elastic.in_axis.only_group
        nodes.attach(body, name, elastic)


def _elastic(layer: nn.Module, name: str, groups: Sequence[Group]) -> ElasticLayer | None:
    """The elastic form of a layer that is no batch norm; None where it stays as it is.

    Convolutions and linear layers always have one; others only where they hold channels of groups.
    """
    sizes = axis_sizes(layer)
    if sizes is None:
        return None
    in_axis, out_axis = (_axis(groups, name, side, size) for side, size in zip(("in", "out"), sizes, strict=True))
    if type(layer) is nn.Conv2d:
        return ElasticConv2d(layer, in_axis, out_axis)
    if type(layer) is nn.Linear:
        return ElasticLinear(layer, in_axis, out_axis)
    if not in_axis.runs and not out_axis.runs:
        return None
    if type(layer) is nn.ConvTranspose2d:
        return ElasticConvTranspose2d(layer, in_axis, out_axis)
    make = _CHANNELWISE.get(type(layer))
    return None if make is None else make(layer, out_axis)


_CHANNELWISE: dict[type[nn.Module], Callable[[Any, Axis], ElasticLayer]] = {
    nn.PReLU: ElasticPReLU,
    nn.LayerNorm: ElasticLayerNorm,
    nn.GroupNorm: ElasticGroupNorm,
    nn.InstanceNorm2d: ElasticInstanceNorm2d,
}
"""Elastic forms of layers that carry channels and consume none."""


def _axis(groups: Sequence[Group], layer: str, side: str, size: int) -> Axis:
    """The input or output axis of a layer, with the channels that groups have on it."""
    runs = []
    for index, group in enumerate(groups):
        for member in group.members:
            if member.layer == layer and member.axis == side:
                runs += [(index, run) for run in member.runs]
    return Axis(size, runs)
