"""A network as data: traced to a graph of layers, split into stem and body, written to JSON and back without pickle."""

from __future__ import annotations

import builtins
import copy
import inspect
import math
import operator
import re
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.errors import BundleError, ModelError

JSON = Any

# What a stored network may consist of. Loading looks names up here and nowhere else: a file can call nothing but these.
LAYERS: dict[str, type[nn.Module]] = {
    name: getattr(nn, name)
    for name in """Conv2d ConvTranspose2d Linear BatchNorm2d BatchNorm1d GroupNorm LayerNorm InstanceNorm2d
    LocalResponseNorm ReLU ReLU6 LeakyReLU PReLU ELU GELU SiLU Mish Sigmoid Tanh Hardswish Hardsigmoid Hardtanh Softplus
    Softmax LogSoftmax MaxPool2d AvgPool2d AdaptiveAvgPool2d AdaptiveMaxPool2d Dropout Dropout2d Identity Flatten
    Unflatten Upsample PixelShuffle ZeroPad2d ReflectionPad2d ChannelShuffle""".split()
}
FUNCTIONS = {
    fx.node._get_qualified_name(function): function
    for function in (
        *(getattr(operator, name) for name in "add sub mul truediv floordiv neg getitem pow mod".split()),
        *(
            getattr(torch, name)
            for name in """add sub mul div flatten cat concat mean sum relu sigmoid tanh softmax clamp reshape permute
            transpose squeeze unsqueeze chunk split stack exp sqrt rsqrt abs maximum minimum amax amin matmul bmm
            adaptive_avg_pool1d channel_shuffle conv2d""".split()
        ),
        *(
            getattr(F, name)
            for name in """relu relu6 leaky_relu elu gelu silu mish hardswish hardsigmoid hardtanh softplus softmax
            log_softmax max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d dropout dropout2d pad interpolate
            normalize batch_norm layer_norm linear""".split()
        ),
        builtins.getattr,
    )
}
METHODS = frozenset(
    """add sub mul div view reshape flatten permute transpose contiguous mean sum amax amin max relu
    sigmoid tanh softmax clamp size dim squeeze unsqueeze chunk split expand expand_as
    view_as reshape_as repeat pow sqrt rsqrt exp float type_as to""".split()
)
ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device"})
# What a file that is no network may raise while one is built from it.
MALFORMED = (
    *(LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError),
    *(RuntimeError, SyntaxError, MemoryError),
)
DTYPES = {str(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)}

_OUT_OF_PLACE: dict[Any, Any] = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}
_OUT_OF_PLACE |= {torch.relu_: torch.relu, torch.sigmoid_: torch.sigmoid}

# Functions that training alone needs; traced in eval mode they return their first argument.
_IDENTITIES = frozenset({"dropout", "dropout2d", "stochastic_depth", "drop_path", "drop_block_2d"})

# Layers that a stem may hold after its convolution: they mix no channels and have one input.
_STEM_LAYERS = (
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.Hardswish,
    nn.GELU,
    nn.LeakyReLU,
    nn.Identity,
    nn.MaxPool2d,
)
_STEM_FUNCTIONS = (F.relu, torch.relu, F.relu6, F.silu, F.hardswish, F.gelu, F.leaky_relu, F.max_pool2d)


class _Tracer(fx.Tracer):
    """Traces as far as it can: a submodule whose forward cannot be traced stays one opaque layer."""

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = len(self.graph.nodes)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            for node in reversed(list(self.graph.nodes)[before:]):
                self.graph.erase_node(node)
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


def trace(model: nn.Module) -> fx.GraphModule:
    """The network as a `torch.fx` graph of its layers, on a copy of the weights and without in-place operations.

    In-place operations would let one pass spoil the features that the next pass starts from.

    Args:
        model: takes one float32 tensor (B, C, H, W), returns logits (B, classes).

    Raises:
        ModelError: the top-level forward cannot be traced.
    """
    model = copy.deepcopy(
        model
    ).eval()  # so that functional dropout and auxiliary heads are traced as inference has them
    try:
        graph = _Tracer().trace(model)
    except Exception as error:
        raise ModelError(
            f"torch.fx cannot trace the forward of {type(model).__name__}: {error}\n"
            "Control flow that depends on a tensor must move into a submodule, which then stays one opaque layer."
        ) from error
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for extra in placeholders[1:]:
        if extra.users:
            raise ModelError(
                f"{type(model).__name__} takes {len(placeholders)} inputs; a network with one image input is needed"
            )
        graph.erase_node(extra)
    network = fx.GraphModule(model, graph)
    _simplify(network)
    network.graph.eliminate_dead_code()
    network.recompile()
    return network


def _simplify(network: fx.GraphModule) -> None:
    """Drop identities, and make in-place operations ordinary ones, whose results later nodes read for their inputs."""
    before: set[fx.Node] = set()
    for node in network.graph.nodes:
        before.add(node)
        if _is_in_place(network, node):
            node.all_input_nodes[0].replace_all_uses_with(node, lambda user: user not in before)
    for layer in network.modules():
        if getattr(layer, "inplace", False):
            cast(Any, layer).inplace = False
    for node in network.graph.nodes:
        if node.kwargs.get("inplace", False):
            node.update_kwarg("inplace", False)
        if getattr(node.target, "__name__", "") in _IDENTITIES:
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)
        elif node.op == "call_function":
            node.target = _OUT_OF_PLACE.get(node.target, node.target)
        elif node.op == "call_method" and node.target.rstrip("_") in METHODS:
            node.target = node.target.rstrip("_")


def _is_in_place(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_method":
        return str(node.target).endswith("_")
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    return bool(node.kwargs.get("inplace", False)) or node.target in _OUT_OF_PLACE


def split_stem(network: fx.GraphModule) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Cut the network behind its first convolution, with the norm, activation and pooling that follow in a chain.

    The stem is what every pass starts from and what the policy reads, so it runs once per image and is never pruned.
    It is empty when the images go to more than one layer at once.

    Returns:
        The stem, images (B, C, H, W) -> features (B, F, H', W'), and the body, features -> logits.
    """
    modules = dict(network.named_modules())
    chain = [next(node for node in network.graph.nodes if node.op == "placeholder")]
    found_convolution = False
    while len(chain[-1].users) == 1:
        (user,) = chain[-1].users
        layer = modules.get(user.target) if user.op == "call_module" else None
        first_convolution = isinstance(layer, nn.Conv2d) and not found_convolution
        passes_on = isinstance(layer, _STEM_LAYERS) or user.target in _STEM_FUNCTIONS
        if len(user.all_input_nodes) != 1 or not (first_convolution or passes_on):
            break
        found_convolution |= first_convolution
        chain.append(user)
    if not found_convolution:
        del chain[1:]
    rest = [node for node in network.graph.nodes if node not in chain and node.op != "output"]
    (output,) = (node for node in network.graph.nodes if node.op == "output")
    return _copy_nodes(network, chain, None, chain[-1]), _copy_nodes(network, rest, chain[-1], output.args[0])


def _copy_nodes(network: fx.GraphModule, nodes: list[fx.Node], entry: fx.Node | None, result: Any) -> fx.GraphModule:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {} if entry is None else {entry: graph.placeholder("features")}
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output(fx.node.map_arg(result, lambda n: copies[n]))
    return fx.GraphModule(network, graph)


class _Measure(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        n.meta["macs"] = counter.get_total_flops() // 2
        n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
        return result


@torch.no_grad()
def measure(network: fx.GraphModule, example: Tensor) -> Tensor:
    """Run one example (1, C, H, W) through the graph; each node's `meta` then holds its output `shape` and its `macs`.

    Raises:
        ModelError: the network does not run on images of this shape.
    """
    try:
        result = _Measure(network).run(example)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"the network does not run on an input of shape {tuple(example.shape)}: {reason}") from error
    if not isinstance(result, Tensor):
        raise ModelError(f"the network returns a {type(result).__name__}; logits of shape (B, classes) are needed")
    return result


def alive_nodes(graph: fx.Graph, constants: Iterable[str] = ()) -> frozenset[str]:
    """Names of the nodes that the output still needs when the nodes named in `constants` need no input any more."""
    constant_names = frozenset(constants)
    waiting = [node for node in graph.nodes if node.op == "output"]
    alive: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node.name not in alive:
            alive.add(node.name)
            waiting.extend(() if node.name in constant_names else node.all_input_nodes)
    return frozenset(alive)


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


def attach(root: nn.Module, name: str, value: nn.Module | Tensor) -> None:
    """Put a layer, parameter or buffer under a dotted name, making the modules on the way."""
    *parents, leaf = name.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    if isinstance(value, nn.Module):
        setattr(root, leaf, value)
    elif isinstance(value, nn.Parameter):
        root.register_parameter(leaf, value)
    else:
        root.register_buffer(leaf, value)
