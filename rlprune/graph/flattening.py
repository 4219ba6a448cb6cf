"""Writes `view` and `reshape` as `flatten`, where that is what they do."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx


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
