"""A traced network as JSON and back, without pickle: nothing outside the allow-list can be called."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

import torch
from torch import fx, nn

from rlprune.errors import MALFORMED, BundleError, ModelError
from rlprune.graph.nodes import attach
from rlprune.graph.operators import ATTRIBUTES, DTYPES, FUNCTIONS, LAYERS, METHODS

JSON = Any


def _encode(value: Any) -> JSON:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, slice):
        return {"slice": [_encode(part) for part in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, torch.dtype) and str(value) in DTYPES:
        return {"dtype": str(value)}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ModelError(f"the network holds a constant that cannot be stored: {value!r} of type {type(value).__name__}")


def _decode(value: JSON, nodes: dict[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_decode(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return nodes[content]
    if kind == "slice":
        return slice(*(_decode(part, nodes) for part in content))
    if kind == "tuple":
        return tuple(_decode(item, nodes) for item in content)
    return {"ellipsis": lambda: Ellipsis, "dtype": lambda: DTYPES[content], "float": lambda: float(content)}[kind]()


def _layer_arguments(name: str, layer: nn.Module) -> dict[str, JSON]:
    if LAYERS.get(type(layer).__name__) is not type(layer):
        raise ModelError(
            f"layer {name!r} is a {type(layer).__module__}.{type(layer).__name__}, which cannot be stored without "
            f"its code; layers that can: {', '.join(sorted(LAYERS))}"
        )
    arguments = {}
    for parameter in inspect.signature(type(layer).__init__).parameters:
        if parameter == "bias":
            arguments[parameter] = getattr(layer, "bias", None) is not None
        elif parameter not in ("self", "device", "dtype", "args", "kwargs") and hasattr(layer, parameter):
            arguments[parameter] = _encode(getattr(layer, parameter))
    return arguments


def to_json(network: fx.GraphModule) -> JSON:
    """Describe the graph, its layers' arguments and its free tensors' shapes; the weights are not included.

    Raises:
        ModelError: a layer, a function or a constant is outside what a stored network may hold.
    """
    nodes, layers, tensors = [], {}, {}
    for node in network.graph.nodes:
        target = node.target
        if node.op == "call_function":
            target = fx.node._get_qualified_name(node.target)
            if target not in FUNCTIONS or (node.target is getattr and node.args[1] not in ATTRIBUTES):
                raise ModelError(f"the network calls {target}, which cannot be stored; allowed: {', '.join(FUNCTIONS)}")
        elif node.op == "call_method" and target not in METHODS:
            raise ModelError(f"the network calls Tensor.{target}, which cannot be stored; allowed: {sorted(METHODS)}")
        elif node.op == "call_module":
            layers[target] = {"type": type(network.get_submodule(target)).__name__} | _layer_arguments(
                target, network.get_submodule(target)
            )
        elif node.op == "get_attr":
            owner, _, leaf = target.rpartition(".")
            tensor = getattr(network.get_submodule(owner), leaf)
            tensors[target] = {"shape": list(tensor.shape), "trainable": isinstance(tensor, nn.Parameter)}
        nodes.append(
            {
                "name": node.name,
                "op": node.op,
                "target": target,
                "args": _encode(node.args),
                "kwargs": {key: _encode(value) for key, value in node.kwargs.items()},
            }
        )
    return {"nodes": nodes, "layers": layers, "tensors": tensors}


def from_json(description: JSON) -> fx.GraphModule:
    """Build the network that `to_json` described, with fresh weights. Nothing outside the tables above can be called.

    Raises:
        BundleError: the description names a layer, function, method or attribute that is not allowed, or is malformed.
    """
    try:
        return _from_json(description)
    except MALFORMED as error:
        raise BundleError(f"the stored network is malformed: {type(error).__name__}: {error}") from error


def _from_json(description: JSON) -> fx.GraphModule:
    root = nn.Module()
    for name in (*description["layers"], *description["tensors"]):
        _check_name(name)
    for name, layer in description["layers"].items():
        arguments = {key: _decode(value, {}) for key, value in layer.items() if key != "type"}
        attach(root, name, _allowed(LAYERS, layer["type"], "layer")(**arguments))
    for name, tensor in description["tensors"].items():
        value = torch.zeros(tensor["shape"])
        attach(root, name, nn.Parameter(value) if tensor["trainable"] else value)
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for node in description["nodes"]:
        target, args = node["target"], _decode(node["args"], nodes)
        for name in (node["name"], *node["kwargs"], *(target,) * (node["op"] in ("placeholder", "output"))):
            _check_name(name)
        if node["op"] == "call_function":
            target = _allowed(FUNCTIONS, target, "function")
            if target is getattr and args[1] not in ATTRIBUTES:
                raise ValueError(f"attribute {args[1]!r} is not allowed; allowed: {sorted(ATTRIBUTES)}")
        elif node["op"] == "call_method" and target not in METHODS:
            raise ValueError(f"method {target!r} is not allowed; allowed: {sorted(METHODS)}")
        elif node["op"] in ("call_module", "get_attr"):
            _allowed(description["layers" if node["op"] == "call_module" else "tensors"], target, node["op"])
        kwargs = {key: _decode(value, nodes) for key, value in node["kwargs"].items()}
        nodes[node["name"]] = graph.create_node(node["op"], target, args, kwargs, name=node["name"])
    graph.lint()
    return fx.GraphModule(root, graph).eval()


def _check_name(name: str) -> None:
    """Refuse what is more than a dotted name: torch.fx writes names into Python code, which it then executes."""
    if not re.fullmatch(r"\w+(\.\w+)*", name, re.ASCII):
        raise ValueError(f"name {name!r} is not allowed; names consist of letters, digits, underscores and dots")


def _allowed(table: dict[str, Any], name: str, kind: str) -> Any:
    if name not in table:
        raise ValueError(f"{kind} {name!r} is not allowed; allowed: {', '.join(sorted(table))}")
    return table[name]
