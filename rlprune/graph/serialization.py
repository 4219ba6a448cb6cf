"""A traced network as JSON and back, without pickle: nothing outside the allow-list can be called."""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import fx, nn

from rlprune.errors import MALFORMED, BundleError, ModelError
from rlprune.graph.names import is_safe, is_safe_path
from rlprune.graph.nodes import attach
from rlprune.graph.operators import ATTRIBUTES, DTYPES, FUNCTIONS, LATER_ARGUMENTS, LAYERS, METHODS
from rlprune.graph.traced import TracedNetwork
from rlprune.utils.hardware import memory_for

JSON = Any
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_MOST_DEPTH = 16
_MOST_TEXT = 1000


def _encode(value: Any) -> JSON:
    """An argument of a node or layer as JSON: nodes, containers, or a constant."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, slice):
        return {"slice": [_encode(part) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    return _encode_constant(value)


def _encode_constant(value: Any) -> JSON:
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, torch.dtype) and str(value) in DTYPES:
        return {"dtype": str(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ModelError(f"the network holds a constant that cannot be stored: {value!r} of type {type(value).__name__}")


def _decode(value: JSON, nodes: dict[str, fx.Node], depth: int = 0) -> Any:
    if depth > _MOST_DEPTH:
        raise ValueError(f"arguments are nested more than {_MOST_DEPTH} times")
    if isinstance(value, list):
        return [_decode(item, nodes, depth + 1) for item in value]
    if not isinstance(value, dict):
        return _decoded_constant(value)
    ((kind, content),) = value.items()
    if kind == "node":
        return nodes[content]
    if kind == "slice":
        start, stop, step = (_decode(part, nodes, depth + 1) for part in content)
        return slice(start, stop, step)
    if kind == "tuple":
        return tuple(_decode(item, nodes, depth + 1) for item in content)
    constants = {"ellipsis": lambda _: Ellipsis, "dtype": DTYPES.__getitem__, "float": _FLOATS.__getitem__}
    return constants[kind](content)


def _decoded_constant(value: Any) -> Any:
    """A constant as it is, if the next step can take it: whole numbers of 64 bits, finite ones, short texts."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a whole number has more than 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number is {value}; finite ones are needed")
    if isinstance(value, str) and len(value) > _MOST_TEXT:
        raise ValueError(f"a text has {len(value):,} letters; at most {_MOST_TEXT} are allowed")
    return value


def _layer_arguments(name: str, layer: nn.Module) -> dict[str, JSON]:
    if LAYERS.get(type(layer).__name__) is not type(layer):
        raise ModelError(
            f"layer {name!r} is a {type(layer).__module__}.{type(layer).__name__}, which cannot be stored without "
            f"its code; layers that can: {', '.join(sorted(LAYERS))}"
        )
    arguments = {}
    for parameter, default in _defaults(type(layer).__name__).items():
        if parameter == "bias":  # a layer without weights has none either, whatever it was asked for
            value: Any = getattr(layer, "bias", None) is not None or getattr(layer, "weight", None) is None
        else:
            value = getattr(layer, parameter, default)
        if value is not inspect.Parameter.empty and value != default:
            arguments[parameter] = _encode(value)
    return arguments


@cache
def _defaults(kind: str) -> dict[str, Any]:
    """The arguments of a class of layers, but for device and number format, each with its default if it has one."""
    parameters = inspect.signature(LAYERS[kind].__init__).parameters
    others = ("self", "device", "dtype", "args", "kwargs")
    return {name: parameter.default for name, parameter in parameters.items() if name not in others}


def understood(kind: str, arguments: Mapping[str, JSON]) -> dict[str, JSON]:
    """Arguments of a layer without those that only a later version of torch knows, where they are its defaults.

    Args:
        kind: name of the layer's class, one of `rlprune.graph.operators.LAYERS`.
        arguments: of the layer, as they are stored.
    """
    own, later = _defaults(kind), LATER_ARGUMENTS.get(kind, {})

    def says_nothing(name: str) -> bool:
        if name in own or name not in later:
            return False
        without_weights = name == "bias" and arguments.get("affine") is False
        return arguments[name] == later[name] or without_weights

    return {name: value for name, value in arguments.items() if not says_nothing(name)}


def to_json(network: fx.GraphModule) -> JSON:
    """Describe a graph, its layers' arguments and its free tensors' shapes; the weights are not included.

    Args:
        network: the traced network.

    Returns:
        An object with `nodes`, `layers` and `tensors`, for `from_json`. Of the arguments of a layer it has those that
        differ from the defaults of its class.

    Raises:
        ModelError: a layer, a function, a method or a constant is not in `rlprune.graph.operators`.
    """
    nodes = []
    layers = {}
    tensors = {}
    for node in network.graph.nodes:
        target = _stored_target(node)
        if node.op == "call_module":
            layer = network.get_submodule(target)
            layers[target] = {"type": type(layer).__name__} | _layer_arguments(target, layer)
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


def check_storable(network: nn.Sequential) -> None:
    """Make sure that a network can be stored, before it is trained.

    Args:
        network: a sequence of graphs as `ElasticCNN.slice` returns it.

    Raises:
        ModelError: a layer, a function, a method or a constant is not in `rlprune.graph.operators`.
    """
    for part in network.children():
        assert isinstance(part, fx.GraphModule)
        to_json(part)


def _stored_target(node: fx.Node) -> str:
    """The name of what a node calls or reads, if it may be stored."""
    if node.op == "call_function":
        assert callable(node.target)
        name = fx.node._get_qualified_name(node.target)
        if node.target is getattr and node.args[1] not in ATTRIBUTES:
            raise ModelError(
                f"the network reads Tensor.{node.args[1]}, which cannot be stored; allowed: {sorted(ATTRIBUTES)}"
            )
        if name not in FUNCTIONS:
            raise ModelError(f"the network calls {name}, which cannot be stored; allowed: {', '.join(FUNCTIONS)}")
        return name
    name = str(node.target)
    if node.op == "call_method" and name not in METHODS:
        raise ModelError(f"the network calls Tensor.{name}, which cannot be stored; allowed: {sorted(METHODS)}")
    return name


def from_json(description: JSON, device: str = "cpu") -> fx.GraphModule:
    """Build the network that `to_json` described, with fresh weights, in eval mode.

    Nothing outside `rlprune.graph.operators` can be called.

    Args:
        description: what `to_json` returned.
        device: where the weights are; on the meta device they take no memory.

    Raises:
        BundleError: the description names a layer, function, method or attribute that is not allowed, or is malformed.
        OutOfMemoryError: the machine has too little memory.
    """
    try:
        with memory_for("building a stored network", "end other programs, or load it on a machine with more"):
            return _from_json(description, device)
    except MALFORMED as error:
        said = " ".join(str(error)[:1000].split())
        raise BundleError(f"the stored network is malformed: {type(error).__name__}: {said}") from error


def _from_json(description: JSON, device: str) -> fx.GraphModule:
    root = _build_modules(description, device)
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for node in description["nodes"]:
        op = node["op"]
        args = _decode(node["args"], nodes)
        _check_name(node["name"])
        for name in node["kwargs"]:
            _check_name(name)
        target = _loaded_target(description, op, node["target"], args)
        kwargs = {key: _decode(value, nodes) for key, value in node["kwargs"].items()}
        nodes[node["name"]] = graph.create_node(op, target, args, kwargs, name=node["name"])
    graph.lint()
    return TracedNetwork(root, graph).eval()


def _build_modules(description: JSON, device: str) -> nn.Module:
    """A module that holds the described layers and free tensors under their names."""
    root = nn.Module()
    for name, layer in description["layers"].items():
        _check_path(name)
        kind = _allowed(LAYERS, layer["type"], "layer")
        stored = {key: value for key, value in layer.items() if key != "type"}
        arguments = {key: _decode(value, {}) for key, value in understood(layer["type"], stored).items()}
        attach(root, name, kind(**arguments, **({"device": device} if _has_device(kind) else {})))
    for name, tensor in description["tensors"].items():
        _check_path(name)
        value = torch.zeros(tensor["shape"], device=device)
        attach(root, name, nn.Parameter(value) if tensor["trainable"] else value)
    return root


@cache
def _has_device(kind: type[nn.Module]) -> bool:
    """Whether layers of a class have weights, and so a device."""
    return "device" in inspect.signature(kind.__init__).parameters


def _loaded_target(description: JSON, op: str, target: Any, args: Any) -> Any:
    """What a node calls or reads, looked up in the allow-list."""
    if op in ("placeholder", "output"):
        _check_name(target)
    elif op not in ("call_function", "call_method", "call_module", "get_attr"):
        raise ValueError(f"operation {reprlib.repr(op)} is not allowed")
    elif op == "call_function":
        target = _allowed(FUNCTIONS, target, "function")
        if target is getattr and args[1] not in ATTRIBUTES:
            raise ValueError(f"attribute {reprlib.repr(args[1])} is not allowed; allowed: {sorted(ATTRIBUTES)}")
    elif op == "call_method" and target not in METHODS:
        raise ValueError(f"method {reprlib.repr(target)} is not allowed; allowed: {sorted(METHODS)}")
    elif op == "call_module":
        _allowed(description["layers"], target, op)
    elif op == "get_attr":
        _allowed(description["tensors"], target, op)
    return target


def _check_name(name: str) -> None:
    """Refuse anything but a dotted name: torch.fx writes names into Python code, which it then executes."""
    if not is_safe(name):
        raise ValueError(
            f"name {reprlib.repr(name)} is not allowed; names consist of letters, digits, underscores and dots"
        )


def _check_path(name: str) -> None:
    """Refuse the name of a layer or tensor under which the network has something else, such as a method."""
    if not is_safe_path(name):
        raise ValueError(
            f"name {reprlib.repr(name)} is not allowed for a layer or a tensor; parts of names consist of letters, "
            "digits and underscores, and are no names of what every network has, such as forward"
        )


def _allowed(table: dict[str, Any], name: str, kind: str) -> Any:
    if name not in table:
        raise ValueError(f"{kind} {reprlib.repr(name)} is not allowed; allowed: {', '.join(sorted(table)[:5])}, ...")
    return table[name]
