"""Traces functional calls on a module's own weights back to the layers that they are: `F.conv2d(x, self.weight)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rlprune.graph.nodes import attach

Call = dict[str, Any]
"""Arguments of a functional call by name; weights as tensors, the input as a node."""


def fold_constants(network: fx.GraphModule) -> None:
    """Compute what depends on weights alone, in place, such as standardised weights; the results become weights."""
    values: dict[fx.Node, Any] = {}
    for node in network.graph.nodes:
        if node.op == "get_attr":
            values[node] = _tensor(network, str(node.target))
        elif node.op in ("call_function", "call_method", "call_module") and _reads_only(node, values):
            try:
                values[node] = _computed(network, node, values)
            except Exception:  # what does not compute alone stays in the graph, as it was  # nosec B112
                continue
    for node, value in values.items():
        if node.op != "get_attr" and isinstance(value, Tensor) and any(user not in values for user in node.users):
            name = _fresh_name(network, f"{_origin(node)}_{node.name}")
            attach(network, name, nn.Parameter(value) if value.is_floating_point() else value)
            with network.graph.inserting_before(node):
                node.replace_all_uses_with(network.graph.get_attr(name), lambda user: user not in values)
    network.graph.eliminate_dead_code()


def _reads_only(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    return bool(node.all_input_nodes) and all(source in values for source in node.all_input_nodes)


@torch.no_grad()
def _computed(network: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    if node.op == "call_module":
        result = network.get_submodule(str(node.target))(*args, **kwargs)
    elif node.op == "call_method":
        result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
    else:
        assert callable(node.target)
        result = node.target(*args, **kwargs)
    return result.detach().clone() if isinstance(result, Tensor) else result


def _origin(node: fx.Node) -> str:
    """The name of the weight that a constant is computed from first."""
    while node.op != "get_attr":
        node = node.all_input_nodes[0]
    return str(node.target)


def _fresh_name(network: nn.Module, name: str) -> str:
    """A name below its owner that nothing has yet."""
    owner_name, _, leaf = name.rpartition(".")
    owner = network.get_submodule(owner_name)
    while hasattr(owner, leaf):
        leaf += "_"
    return f"{owner_name}.{leaf}" if owner_name else leaf


def _tensor(network: nn.Module, name: str) -> Tensor:
    owner, _, leaf = name.rpartition(".")
    value: Tensor = getattr(network.get_submodule(owner), leaf)
    return value


def read_functional_layers(network: fx.GraphModule) -> None:
    """Replace functional calls on weights by the layers that they are, in place; results stay the same.

    Args:
        network: a traced graph without constants that are still to be computed (`fold_constants`).
    """
    made: dict[Any, str] = {}
    renamed: set[str] = set()
    for node in list(network.graph.nodes):
        if node.op != "call_function" or node.target not in _LAYERS:
            continue
        name = _layer_name(network, node, made, renamed)
        if name is not None:
            source = _arguments(network, node)["input"]
            with network.graph.inserting_before(node):
                node.replace_all_uses_with(network.graph.call_module(name, (source,)))
            network.graph.erase_node(node)
    _move_out(network, renamed)
    network.graph.eliminate_dead_code()


def _layer_name(network: fx.GraphModule, node: fx.Node, made: dict[Any, str], taken: set[str]) -> str | None:
    """Make the layer of a functional call, and return its name; None if its weights are not the network's own."""
    assert callable(node.target)
    weights = [str(source.target) for source in node.all_input_nodes if source.op == "get_attr"]
    call = _arguments(network, node)
    if not (weights or node.target is F.layer_norm) or call is None or not _is_constant(call):
        return None
    plain = {key: value for key, value in call.items() if not isinstance(value, Tensor | fx.Node)}
    key = (node.target, tuple(weights) or node.name, repr(plain))
    if key in made:
        return made[key]
    owner = weights[0].rpartition(".")[0] if weights else ""
    kind = type(network.get_submodule(owner))
    layer = _LAYERS[node.target](call, kind)
    if layer is None:
        return None
    name = owner
    if not owner or owner in taken:
        leaf = weights[0][len(owner) + 1 :] if owner else weights[0] if weights else node.name
        name = _fresh_name(network, f"{owner}_{leaf}_layer" if owner else f"{leaf}_layer")
    taken.add(name)
    made[key] = name
    if name == owner:
        _keep_children(network, owner, layer)
    attach(network, name, layer.eval())
    return name


def _keep_children(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Let a layer hold what the module that it replaces held, until `_move_out`."""
    before = network.get_submodule(name)
    for child_name, child in before.named_children():
        layer.add_module(child_name, child)
    for key, value in (*before._parameters.items(), *before._buffers.items()):
        if not hasattr(layer, key) and value is not None:
            attach(layer, key, value)


def _move_out(network: fx.GraphModule, layers: set[str]) -> None:
    """Give what was inside a module that is now one layer a name beside it."""
    moved: dict[str, str] = {}
    for node in network.graph.nodes:
        target = str(node.target)
        inside = [layer for layer in layers if target.startswith(layer + ".")]
        if node.op not in ("call_module", "get_attr") or not inside:
            continue
        layer = min(inside, key=len)
        if target not in moved:
            moved[target] = _fresh_name(network, f"{layer}_{target[len(layer) + 1 :].replace('.', '_')}")
            value = network.get_submodule(target) if node.op == "call_module" else _tensor(network, target)
            attach(network, moved[target], value)
        node.target = moved[target]
    for module in [network.get_submodule(layer) for layer in layers]:  # one may be inside another
        module._modules.clear()
        for extra in set(module._parameters) - {"weight", "bias"}:
            del module._parameters[extra]
        for extra in set(module._buffers) - {"running_mean", "running_var", "num_batches_tracked"}:
            del module._buffers[extra]


def _arguments(network: fx.GraphModule, node: fx.Node) -> Any:
    """Arguments of a functional call by name: own weights as tensors, everything else as it is; None if it is wrong."""
    assert callable(node.target)
    names = _NAMES.get(node.target) or tuple(inspect.signature(node.target).parameters)
    call = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    if "input" not in call:
        return None
    for key, value in call.items():
        if key != "input" and isinstance(value, fx.Node) and value.op == "get_attr":
            call[key] = _tensor(network, str(value.target))
    return call


def _is_constant(call: Call) -> bool:
    """Whether nothing but the input is computed anew for every image."""
    others = [value for key, value in call.items() if key != "input"]
    found: list[fx.Node] = []
    fx.node.map_arg(others, found.append)
    return isinstance(call["input"], fx.Node) and call["input"].op != "get_attr" and not found


def _pair(value: Any, n: int = 2) -> Any:
    return (value,) * n if isinstance(value, int) else value if isinstance(value, str) else tuple(value)


def _convolution(kind: type[nn.Module], n: int) -> Callable[[Call, type[nn.Module]], nn.Module | None]:
    def make(call: Call, _: type[nn.Module]) -> nn.Module | None:
        weight = call["weight"]
        if not isinstance(weight, Tensor):
            return None
        groups = call.get("groups", 1)
        sizes = [
            _pair(call.get(name, default), n) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        ]
        sizes = [value * n if isinstance(value, tuple) and len(value) == 1 else value for value in sizes]
        stride, padding, dilation = sizes
        layer = kind(
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride,
            padding,
            dilation,
            groups,
            call.get("bias") is not None,
            device="meta",
        )
        return _with_weights(layer, weight=weight, bias=call.get("bias"))

    return make


def _transposed(call: Call, _: type[nn.Module]) -> nn.Module | None:
    weight = call["weight"]
    if not isinstance(weight, Tensor):
        return None
    groups = call.get("groups", 1)
    layer = nn.ConvTranspose2d(
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        _pair(call.get("stride", 1)),
        _pair(call.get("padding", 0)),
        _pair(call.get("output_padding", 0)),
        groups,
        call.get("bias") is not None,
        _pair(call.get("dilation", 1)),
        device="meta",
    )
    return _with_weights(layer, weight=weight, bias=call.get("bias"))


def _linear(call: Call, _: type[nn.Module]) -> nn.Module | None:
    weight = call["weight"]
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0], call.get("bias") is not None, device="meta")
    return _with_weights(layer, weight=weight, bias=call.get("bias"))


def _batch_norm(call: Call, owner: type[nn.Module]) -> nn.Module | None:
    mean, var = call.get("running_mean"), call.get("running_var")
    if call.get("training", False) or not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        return None
    kind = nn.BatchNorm1d if issubclass(owner, nn.BatchNorm1d) else nn.BatchNorm2d
    layer = kind(len(mean), call.get("eps", 1e-5), call.get("momentum", 0.1) or 0.1)
    ones, zeros = torch.ones_like(mean), torch.zeros_like(mean)
    weight = ones if call.get("weight") is None else call["weight"]
    bias = zeros if call.get("bias") is None else call["bias"]
    return _with_weights(layer, weight=weight, bias=bias, running_mean=mean, running_var=var)


def _layer_norm(call: Call, _: type[nn.Module]) -> nn.Module | None:
    weight, bias = call.get("weight"), call.get("bias")
    shape = [int(size) for size in call["normalized_shape"]]
    layer = nn.LayerNorm(shape, call.get("eps", 1e-5), weight is not None, bias is not None, device="meta")
    return _with_weights(layer, weight=weight, bias=bias)


def _group_norm(call: Call, _: type[nn.Module]) -> nn.Module | None:
    weight, bias = call.get("weight"), call.get("bias")
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return None
    layer = nn.GroupNorm(call["num_groups"], len(weight), call.get("eps", 1e-5), device="meta")
    return _with_weights(layer, weight=weight, bias=bias)


def _prelu(call: Call, _: type[nn.Module]) -> nn.Module | None:
    weight = call["weight"]
    return _with_weights(nn.PReLU(weight.numel(), device="meta"), weight=weight) if isinstance(weight, Tensor) else None


def _with_weights(layer: nn.Module, **tensors: Any) -> nn.Module:
    """Fill a layer with these tensors; each stays the parameter that it is."""
    for name, value in tensors.items():
        if value is None:
            continue
        if name in layer._parameters:
            layer._parameters[name] = value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach().clone())
        else:
            layer._buffers[name] = value.detach().clone()
    return layer


_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_NAMES: dict[Any, tuple[str, ...]] = {
    F.conv2d: _CONV,
    F.conv1d: _CONV,
    F.conv_transpose2d: ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    F.linear: ("input", "weight", "bias"),
    F.prelu: ("input", "weight"),
    torch.prelu: ("input", "weight"),
}
"""Arguments of functions that are written in C++."""
_LAYERS: dict[Any, Callable[[Call, type[nn.Module]], nn.Module | None]] = {
    F.conv2d: _convolution(nn.Conv2d, 2),
    F.conv1d: _convolution(nn.Conv1d, 1),
    F.conv_transpose2d: _transposed,
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.prelu: _prelu,
    torch.prelu: _prelu,
}
"""What makes a layer of a call, given the class of the module that owns the weights; None where it is no such layer."""
