"""Constants that dropped branches leave, joined: relu(relu(x + a) + b) is max(x + (a + b), max(b, 0))."""

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
    """What a node comes to: max(base + shift, floor).

    Attributes:
        base: another node.
        shift: per channel, (1, C, 1, ...); None for 0.
        floor: likewise; None where there is none, 0 that of a rectifier.
    """

    base: fx.Node
    shift: Tensor | None = None
    floor: Tensor | None = None

    def plus(self, constant: Tensor) -> _Shifted:
        """After a constant is added."""
        shift = constant if self.shift is None else self.shift + constant
        return _Shifted(self.base, shift, None if self.floor is None else self.floor + constant)

    def rectified(self) -> _Shifted:
        """After a rectifier."""
        return _Shifted(self.base, self.shift, torch.zeros(()) if self.floor is None else self.floor.clamp_min(0))


@torch.no_grad()
def join_shifts(network: fx.GraphModule) -> None:
    """Put one sum and one maximum in place of every run of constants that are added and rectified, for inference.

    The sum goes into the bias of the layer before, where there is one. The graph is changed in place; it gives the
    same to rounding.
    """
    joined: dict[fx.Node, _Shifted] = {}
    for node in network.graph.nodes:
        if (found := _read(network, node, joined)) is not None:
            joined[node] = found
    for node, found in reversed(joined.items()):
        if node.users and found.shift is not None:
            _write(network, node, found)
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
    """Whether a node is the plain sum of two others."""
    return node_target(network, node) in SUMS and len(node.all_input_nodes) == 2 and not node.kwargs


def _read(network: fx.GraphModule, node: fx.Node, joined: dict[fx.Node, _Shifted]) -> _Shifted | None:
    """What a node comes to, if it adds a constant or rectifies."""
    called = node_target(network, node)
    if called in RECTIFIERS:
        return _of(node.all_input_nodes[0], joined).rectified()
    if is_sum(network, node):
        constants = [source for source in node.all_input_nodes if source.op == "get_attr"]
        others = [source for source in node.all_input_nodes if source.op != "get_attr"]
        if len(constants) == 1:
            return _of(others[0], joined).plus(getattr(network, str(constants[0].target)).detach())
    return None


def _of(node: fx.Node, joined: dict[fx.Node, _Shifted]) -> _Shifted:
    """What a node comes to for one that reads it: itself, if others read it too."""
    return joined[node] if node in joined and len(node.users) == 1 else _Shifted(node)


def _write(network: fx.GraphModule, node: fx.Node, found: _Shifted) -> None:
    """Compute a node from its base."""
    assert found.shift is not None
    value = found.base
    layer = _biased(network, value)
    with network.graph.inserting_before(node):
        if layer is None:
            value = network.graph.call_function(operator.add, (value, _constant(network, node, "shift", found.shift)))
        else:
            _raise_bias(layer, found.shift.flatten())
        if found.floor is not None and found.floor.any():
            value = network.graph.call_function(torch.maximum, (value, _constant(network, node, "floor", found.floor)))
        elif found.floor is not None:
            value = network.graph.call_function(torch.relu, (value,))
    value.meta = node.meta
    node.replace_all_uses_with(value)


def _constant(network: fx.GraphModule, node: fx.Node, kind: str, value: Tensor) -> fx.Node:
    name = f"{node.name}_{kind}"
    network.register_buffer(name, value.clone())
    return network.graph.get_attr(name)


def _biased(network: fx.GraphModule, node: fx.Node) -> nn.Conv2d | nn.Linear | None:
    """The layer whose bias a shift of a node may go into, as nothing else reads what it gives; it may be a summand."""
    if len(node.users) > 1:
        return None
    if is_sum(network, node):
        found = (_biased(network, source) for source in node.all_input_nodes if not is_sum(network, source))
        return next((layer for layer in found if layer is not None), None)
    if node.op != "call_module" or sum(other.target == node.target for other in network.graph.nodes) > 1:
        return None
    layer = network.get_submodule(str(node.target))
    return layer if type(layer) in (nn.Conv2d, nn.Linear) else None  # type: ignore[return-value]


def _raise_bias(layer: nn.Conv2d | nn.Linear, shift: Tensor) -> None:
    before = torch.zeros_like(shift) if layer.bias is None else layer.bias
    layer.bias = nn.Parameter(before + shift, requires_grad=False)
