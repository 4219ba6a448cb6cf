"""Folds the constants that dropped branches leave behind: relu(relu(x + a) + b) is max(x + (a + b), max(b, 0))."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

RECTIFIERS = (nn.ReLU, F.relu, torch.relu)
SUMS = (operator.add, torch.add)


@dataclass(frozen=True)
class _Shifted:
    """A node's value, written as max(base + shift, floor).

    Attributes:
        base: the node that the value starts from.
        shift: per channel, float32 (1, C, 1, ...); None for 0.
        floor: likewise, 0 for a rectifier; None where there is no floor.
    """

    base: fx.Node
    shift: Tensor | None = None
    floor: Tensor | None = None

    def plus(self, constant: Tensor) -> _Shifted:
        """The value after a constant is added."""
        shift = constant if self.shift is None else self.shift + constant
        floor = None if self.floor is None else self.floor + constant
        return _Shifted(self.base, shift, floor)

    def rectified(self) -> _Shifted:
        """The value after a rectifier."""
        floor = torch.zeros(()) if self.floor is None else self.floor.clamp_min(0)
        return _Shifted(self.base, self.shift, floor)


@torch.no_grad()
def join_shifts(network: fx.GraphModule) -> None:
    """Replace every run of constant additions and rectifiers by one addition and one maximum, for inference.

    The constant is added to the bias of the layer before, where there is one. The graph is changed in place; its
    results stay the same up to rounding.

    Args:
        network: the graph of a sliced network, in eval mode.
    """
    values: dict[fx.Node, _Shifted] = {}
    for node in network.graph.nodes:
        value = _read(network, node, values)
        if value is not None:
            values[node] = value
    for node, value in reversed(values.items()):
        if node.users and value.shift is not None:
            _write(network, node, value)
            network.graph.eliminate_dead_code()
    used = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in network.named_parameters(recurse=False) if name not in used]:
        delattr(network, name)
    network.recompile()


def node_target(network: fx.GraphModule, node: fx.Node) -> object:
    """The function that a node calls, or the class of its layer; None if it calls neither."""
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target)))
    return node.target if node.op == "call_function" else None


def is_sum(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is the plain sum of two other nodes."""
    return node_target(network, node) in SUMS and len(node.all_input_nodes) == 2 and not node.kwargs


def _read(network: fx.GraphModule, node: fx.Node, values: dict[fx.Node, _Shifted]) -> _Shifted | None:
    """The value of a node that adds a constant or rectifies; None for any other node."""
    if node_target(network, node) in RECTIFIERS:
        return _value_for_reader(node.all_input_nodes[0], values).rectified()
    if is_sum(network, node):
        constants = [source for source in node.all_input_nodes if source.op == "get_attr"]
        others = [source for source in node.all_input_nodes if source.op != "get_attr"]
        if len(constants) == 1:
            constant = getattr(network, str(constants[0].target)).detach()
            return _value_for_reader(others[0], values).plus(constant)
    return None


def _value_for_reader(node: fx.Node, values: dict[fx.Node, _Shifted]) -> _Shifted:
    """The value of a node as its reader may use it: the node itself where others read it too."""
    return values[node] if node in values and len(node.users) == 1 else _Shifted(node)


def _write(network: fx.GraphModule, node: fx.Node, value: _Shifted) -> None:
    """Compute a node directly from its base."""
    assert value.shift is not None
    result = value.base
    layer = _layer_with_bias(network, result)
    with network.graph.inserting_before(node):
        if layer is None:
            shift = _constant(network, node, "shift", value.shift)
            result = network.graph.call_function(operator.add, (result, shift))
        else:
            _raise_bias(layer, value.shift.flatten())
        if value.floor is not None and value.floor.any():
            floor = _constant(network, node, "floor", value.floor)
            result = network.graph.call_function(torch.maximum, (result, floor))
        elif value.floor is not None:
            result = network.graph.call_function(torch.relu, (result,))
    result.meta = node.meta
    node.replace_all_uses_with(result)


def _constant(network: fx.GraphModule, node: fx.Node, kind: str, value: Tensor) -> fx.Node:
    name = f"{node.name}_{kind}"
    network.register_buffer(name, value.clone())
    return network.graph.get_attr(name)


def _layer_with_bias(network: fx.GraphModule, node: fx.Node) -> nn.Conv2d | nn.Linear | None:
    """The layer whose bias may take up a node's shift: nothing else reads its result. It may be a summand of the node.

    None where there is no such layer.
    """
    if len(node.users) > 1:
        return None
    if is_sum(network, node):
        layers = (_layer_with_bias(network, source) for source in node.all_input_nodes if not is_sum(network, source))
        return next((layer for layer in layers if layer is not None), None)
    if node.op != "call_module" or sum(other.target == node.target for other in network.graph.nodes) > 1:
        return None
    layer = network.get_submodule(str(node.target))
    return layer if type(layer) in (nn.Conv2d, nn.Linear) else None  # type: ignore[return-value]


def _raise_bias(layer: nn.Conv2d | nn.Linear, shift: Tensor) -> None:
    before = torch.zeros_like(shift) if layer.bias is None else layer.bias
    layer.bias = nn.Parameter(before + shift, requires_grad=False)
