"""The nodes of a traced network: the shape and cost of each, and which are still needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.errors import ModelError


class _Measure(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        n.meta["macs"] = counter.get_total_flops() // 2
        n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
        return result


@torch.no_grad()
def measure(network: fx.GraphModule, example: Tensor) -> Tensor:
    """Run one example through a graph and note in each node's `meta` its output `shape` and its `macs`.

    Args:
        network: the graph.
        example: one input, float32 (1, C, H, W).

    Returns:
        The graph's result, float32 (1, ...).

    Raises:
        ModelError: the network does not run on an input of this shape, or does not return a tensor.
    """
    try:
        result = _Measure(network).run(example)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"the network does not run on an input of shape {tuple(example.shape)}: {reason}") from error
    if not isinstance(result, Tensor):
        raise ModelError(f"the network returns a {type(result).__name__}; logits of shape (B, classes) are needed")
    return result


def measure_also(network: fx.GraphModule, examples: Sequence[Tensor]) -> None:
    """Note in each node's `meta`, as `also`, its shape and MACs for other inputs; what `measure` noted stays.

    Args:
        network: a measured graph.
        examples: one input each, float32 (1, C, H, W).

    Raises:
        ModelError: the network does not run on one of them.
    """
    known = {node: (node.meta["shape"], node.meta["macs"]) for node in network.graph.nodes}
    also: dict[fx.Node, list[tuple[Any, int]]] = {node: [] for node in known}
    for example in examples:
        measure(network, example)
        for node, found in also.items():
            found.append((node.meta["shape"], node.meta["macs"]))
    for node, (shape, macs) in known.items():
        node.meta |= {"shape": shape, "macs": macs, "also": also[node]}


def given_shape(network: fx.GraphModule) -> tuple[int, ...]:
    """The shape of what a measured graph gives for one example, (1, ...)."""
    shape: tuple[int, ...] = next(iter(reversed(network.graph.nodes))).meta["shape"]
    return shape


def alive_nodes(graph: fx.Graph, constants: Iterable[str] = ()) -> frozenset[str]:
    """Names of the nodes that the output still needs when the nodes named in `constants` need no input."""
    return alive_names(inputs_of(graph), constants)


def inputs_of(graph: fx.Graph) -> dict[str, tuple[str, ...]]:
    """For each node, by name and in the graph's order, the names of the nodes that it reads; the output is the last."""
    return {node.name: tuple(source.name for source in node.all_input_nodes) for node in graph.nodes}


def alive_names(inputs: dict[str, tuple[str, ...]], constants: Iterable[str] = ()) -> frozenset[str]:
    """The same as `alive_nodes`, of what `inputs_of` returned."""
    constant_names = frozenset(constants)
    waiting = [next(reversed(inputs))]
    alive: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in alive:
            alive.add(name)
            if name not in constant_names:
                waiting.extend(inputs[name])
    return frozenset(alive)


def attach(root: nn.Module, name: str, value: nn.Module | Tensor) -> None:
    """Put a layer, parameter or buffer under a dotted name, creating the modules on the way."""
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
