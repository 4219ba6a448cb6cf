"""`TracedNetwork`, a network as a graph of its layers, which may be pickled and is forgotten when it is gone."""

from __future__ import annotations

import linecache
import weakref
from typing import Any, NamedTuple

from torch import fx, nn
from torch.fx import graph_module

from rlprune.graph.operators import FUNCTIONS

_KEPT = ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set")
"""What of a module is pickled beside its graph."""
_MEASURED = ("shape", "macs")
"""What of a node's `meta` is pickled; see `rlprune.graph.nodes.measure`."""


class TracedNetwork(fx.GraphModule):
    """A `torch.fx.GraphModule` that arrives in another process as it was, and whose source is forgotten with it.

    Torch pickles the generated source alone and traces it anew, which loses what was measured of each node. It also
    keeps the source of every network that it ever compiled, so that a process which loads networks again and again
    would grow for ever.
    """

    def recompile(self) -> Any:
        """Generate and compile the code of the graph anew."""
        code = super().recompile()
        # torch.fx's own also prints a traceback where a pass fails
        type(self).__call__ = nn.Module.__call__  # type: ignore[method-assign]
        known: list[str] | None = self.__dict__.get("_source_names")
        if known is None:
            known = []
            object.__setattr__(self, "_source_names", known)
            weakref.finalize(self, _forget, known).atexit = False
        _forget(known)
        known.append(type(self).forward.__code__.co_filename)
        return code

    def __reduce__(self) -> tuple[Any, ...]:
        """Parts that can be pickled, and how they become the network again."""
        parts = {name: self.__dict__[name] for name in _KEPT}
        return _unpacked, (parts, [_packed(node) for node in self.graph.nodes], self.training)


def _forget(names: list[str]) -> None:
    """Take generated sources out of the places in which torch keeps them for tracebacks."""
    sources: dict[str, str] = getattr(getattr(graph_module, "_loader", None), "eval_cache", {})
    while names:
        name = names.pop()
        sources.pop(name, None)
        linecache.cache.pop(name, None)


class _Node(NamedTuple):
    """Stands for a node among the arguments of another."""

    name: str


class _Function(NamedTuple):
    """Stands for a function that torch made inside another one, such as `max_pool2d`, which cannot be pickled."""

    name: str


def _packed(node: fx.Node) -> tuple[Any, ...]:
    target: Any = node.target
    if node.op == "call_function":
        name = fx.node._get_qualified_name(target)
        target = _Function(name) if FUNCTIONS.get(name) is target else target
    args, kwargs = (fx.node.map_arg(part, lambda other: _Node(other.name)) for part in (node.args, node.kwargs))
    measured = {key: node.meta[key] for key in _MEASURED if key in node.meta}
    return node.op, target, args, kwargs, node.name, measured


def _unpacked(parts: dict[str, Any], nodes: list[tuple[Any, ...]], training: bool) -> fx.GraphModule:
    root = nn.Module()
    root.__dict__.update(parts)
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}
    for op, target, args, kwargs, name, measured in nodes:
        function = FUNCTIONS[target.name] if isinstance(target, _Function) else target
        node = graph.create_node(op, function, _resolved(tuple(args), made), _resolved(dict(kwargs), made), name=name)
        node.meta.update(measured)
        made[name] = node
    network = TracedNetwork(root, graph)
    network.__dict__.update(parts)  # the very modules, in the mode that each was in
    network.training = training
    return network


def _resolved(value: Any, made: dict[str, fx.Node]) -> Any:
    """An argument with nodes in place of what stands for them."""
    if isinstance(value, _Node):
        return made[value.name]
    if isinstance(value, dict):
        return {key: _resolved(each, made) for key, each in value.items()}
    if isinstance(value, slice):
        return slice(*(_resolved(part, made) for part in (value.start, value.stop, value.step)))
    if isinstance(value, list | tuple):
        return type(value)(_resolved(each, made) for each in value)
    return value
