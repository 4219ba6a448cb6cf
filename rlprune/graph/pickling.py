"""Sending a traced network to another process: its nodes as they are, with what was measured of them.

A `torch.fx.GraphModule` that is pickled by itself is traced anew where it arrives, without shape and cost of its nodes.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from torch import fx, nn

from rlprune.graph.nodes import TracedNetwork


class _Reference(NamedTuple):
    """Stands for a node among the arguments of another."""

    name: str


class PackedGraph:
    """A traced network in the state of a module that is pickled or copied; it arrives as a `torch.fx.GraphModule`.

    Args:
        network: the network.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        self.network = network

    def __deepcopy__(self, memo: dict[int, Any]) -> fx.GraphModule:
        """A copy of the network."""
        return copy.deepcopy(self.network, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        """Parts that can be pickled, and how they become the network again."""
        network = self.network
        parts = {name: network.__dict__[name] for name in ("_modules", "_parameters", "_buffers")}
        return _unpacked, (parts, [_packed(node) for node in network.graph.nodes], network.training)


def pack_graphs(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a module, in which the traced networks right below it are packed."""
    modules = {
        name: PackedGraph(module) if isinstance(module, fx.GraphModule) else module
        for name, module in state["_modules"].items()
    }
    return state | {"_modules": modules}


def _packed(node: fx.Node) -> tuple[Any, ...]:
    args, kwargs = (fx.node.map_arg(part, lambda other: _Reference(other.name)) for part in (node.args, node.kwargs))
    measured = {key: node.meta[key] for key in ("shape", "macs") if key in node.meta}
    return node.op, node.target, args, kwargs, node.name, measured


def _unpacked(parts: dict[str, Any], nodes: list[tuple[Any, ...]], training: bool) -> fx.GraphModule:
    root = nn.Module()
    root.__dict__.update(parts)
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}

    def resolved(value: Any) -> Any:
        if isinstance(value, _Reference):
            return made[value.name]
        if isinstance(value, dict):
            return {key: resolved(each) for key, each in value.items()}
        if isinstance(value, slice):
            return slice(resolved(value.start), resolved(value.stop), resolved(value.step))
        return type(value)(map(resolved, value)) if isinstance(value, list | tuple) else value

    for op, target, args, kwargs, name, measured in nodes:
        node = graph.create_node(op, target, resolved(tuple(args)), resolved(dict(kwargs)), name=name)
        node.meta.update(measured)
        made[name] = node
    network = TracedNetwork(root, graph)
    network.__dict__.update(parts)  # the very modules, in the mode that each was in
    network.training = training
    return network
