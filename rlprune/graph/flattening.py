"""Writes operations with fixed sizes as others that do the same without: flattening, and cutting into equal parts."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn


def read_flattening(network: fx.GraphModule) -> None:
    """Write `view` and `reshape` as `flatten` where that is what they do, in place.

    Flattening fixes no size, and works in any memory format. `x.view(x.size(0), -1)` is read wherever it stands;
    `x.view(-1, 2048)` where the graph was measured and its size fits.
    """
    for node in list(network.graph.nodes):
        if node.op == "call_method" and node.target in ("view", "reshape"):
            source, *sizes = node.args
        elif node.op == "call_function" and node.target is torch.reshape:
            source, *sizes = node.args
        else:
            continue
        if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
            sizes = list(sizes[0])
        if isinstance(source, fx.Node) and len(sizes) == 2 and _flattens(source, sizes[0], sizes[1]):
            with network.graph.inserting_before(node):
                new = network.graph.call_function(torch.flatten, (source, 1))
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
            network.graph.erase_node(node)
    network.graph.eliminate_dead_code()
    network.recompile()


def _flattens(source: fx.Node, first: Any, second: Any) -> bool:
    """Whether a reshape of a node to (first, second) keeps images and joins everything else."""
    if _is_batch_size(first):
        shape = source.meta.get("shape")
        return bool(second == -1 or (shape is not None and second == math.prod(shape[1:])))
    shape = source.meta.get("shape")
    return bool(first == -1 and shape and isinstance(second, int) and second == math.prod(shape[1:]))


def _is_batch_size(value: Any) -> bool:
    """Whether a value is the number of images: the first size of some features."""
    if not isinstance(value, fx.Node):
        return False
    if value.op == "call_method" and value.target == "size":
        return bool(value.args[1:] == (0,) or value.kwargs.get("dim") == 0)
    if value.op == "call_function" and value.target is operator.getitem and value.args[1] == 0:
        sizes = value.args[0]
        assert isinstance(sizes, fx.Node)
        is_shape = sizes.op == "call_function" and sizes.target is getattr and sizes.args[1] == "shape"
        is_size = sizes.op == "call_method" and sizes.target == "size" and len(sizes.args) == 1
        return is_shape or is_size
    return False


def read_chunks(network: fx.GraphModule) -> None:
    """Write what cuts channels into equal parts as `chunk`, in place: it also works where there are fewer channels.

    That is `x.split(16, 1)` and `x[:, :16]` of 32 channels, and gated linear units, which hide the cut.

    Args:
        network: a measured graph (`rlprune.graph.nodes.measure`).
    """
    for node in list(network.graph.nodes):
        source = node.args[0] if node.args else None
        shape = source.meta.get("shape") if isinstance(source, fx.Node) else None
        if shape is None or len(shape) < 2:
            continue
        with network.graph.inserting_before(node):
            new = _as_chunks(network, node, source, shape)
        if new is not None:
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
            network.graph.erase_node(node)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()


def _as_chunks(network: fx.GraphModule, node: fx.Node, source: Any, shape: tuple[int, ...]) -> fx.Node | None:
    """A new node that does the same as another by `chunk`; None where that cuts nothing into equal parts."""
    graph = network.graph
    if _is_gate(network, node, len(shape)) and shape[1] % 2 == 0:
        halves = graph.call_function(torch.chunk, (source, 2, 1))
        value, gate = (graph.call_function(operator.getitem, (halves, half)) for half in (0, 1))
        return graph.call_function(operator.mul, (value, graph.call_function(torch.sigmoid, (gate,))))
    size = _split_size(node, len(shape))
    if size is not None and shape[1] > size and shape[1] % size == 0:
        return graph.call_function(torch.chunk, (source, shape[1] // size, 1))
    start, stop = _cut(node, shape) or (0, 0)
    size = stop - start
    if 0 < size < shape[1] and shape[1] % size == 0 and start % size == 0:
        parts = graph.call_function(torch.chunk, (source, shape[1] // size, 1))
        return graph.call_function(operator.getitem, (parts, start // size))
    return None


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _is_gate(network: fx.GraphModule, node: fx.Node, ndim: int) -> bool:
    """Whether a node is a gated linear unit over channels."""
    if node.op == "call_module":
        layer = network.get_submodule(str(node.target))
        return type(layer) is nn.GLU and layer.dim % ndim == 1
    return node.target is F.glu and _argument(node, 1, "dim", -1) % ndim == 1


def _split_size(node: fx.Node, ndim: int) -> int | None:
    """The number of channels in each part, where a node splits channels into equal ones."""
    is_split = node.target is torch.split or (node.op == "call_method" and node.target == "split")
    if not is_split or _argument(node, 2, "dim", 0) % ndim != 1:
        return None
    name = "split_size" if node.op == "call_method" else "split_size_or_sections"
    size = _argument(node, 1, name, None)
    if isinstance(size, tuple | list) and len(size) > 1 and len(set(size)) == 1:
        size = size[0]
    return size if isinstance(size, int) else None


def _cut(node: fx.Node, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The first channel and the one behind the last, where a node picks neighbouring channels and nothing else."""
    index = node.args[1] if node.target is operator.getitem else None
    if not isinstance(index, tuple) or len(index) < 2 or not isinstance(index[1], slice) or index[0] is Ellipsis:
        return None
    others = [part for number, part in enumerate(index) if number != 1]
    bounds = (index[1].start, index[1].stop, index[1].step)
    fixed = all(bound is None or isinstance(bound, int) for bound in bounds)
    if not fixed or any(part not in (slice(None), Ellipsis) for part in others):
        return None
    start, stop, step = index[1].indices(shape[1])
    return (start, stop) if step == 1 else None
