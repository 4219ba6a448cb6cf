"""Faster forms of a network for inference: the same results with fewer layers and less memory."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from rlprune.errors import ModelError
from rlprune.graph import nodes, tracing
from rlprune.graph.constant_folding import RECTIFIERS, SUMS, is_sum, join_shifts, node_target

_IN_PLACE: dict[object, Callable[..., Any]] = {
    **dict.fromkeys(RECTIFIERS, torch.relu_),
    torch.maximum: torch.clamp_min_,
}
_OWNERS = {nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d, *SUMS, operator.iadd, *_IN_PLACE, *_IN_PLACE.values()}
"""Functions and layers whose result is a fresh tensor, which its only reader may overwrite."""


def fold_for_teacher(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode that runs faster as a teacher: batch norms folded, where it can be traced.

    Args:
        network: float32 images (B, C, H, W) -> logits (B, classes).

    Returns:
        A network with the same logits up to rounding; a plain copy where `torch.fx` cannot trace the forward.
    """
    try:
        return fold_norms(nn.Sequential(tracing.trace(network)))
    except ModelError:
        return copy.deepcopy(network).eval()


def optimize_for_inference(network: nn.Sequential) -> nn.Sequential:
    """A copy of a slice that runs as fast as possible: norms folded, sums in place, weights in channels_last format.

    Args:
        network: in eval mode, a sequence of graphs as `ElasticCNN.slice` returns it.

    Returns:
        A network with the same results up to rounding, for inference only.
    """
    folded = fold_norms(network)
    for part in folded.children():
        assert isinstance(part, fx.GraphModule)
        join_shifts(part)
        _write_in_place(part)
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def fold_norms(network: nn.Sequential) -> nn.Sequential:
    """A copy of a network without the batch norms that follow a convolution or a linear layer.

    Args:
        network: in eval mode, a sequence of graphs as `ElasticCNN.slice` returns it.

    Returns:
        A network with the same results up to rounding.
    """
    folded = nn.Sequential()
    for name, part in copy.deepcopy(network).named_children():
        assert isinstance(part, fx.GraphModule)
        folded.add_module(name, fold(part))
    return folded.eval()


def fold(network: fx.GraphModule) -> fx.GraphModule:
    """Fold the batch norms of one graph, in eval mode; the graph is changed in place and returned."""
    calls = Counter(node.target for node in network.graph.nodes if node.op == "call_module")
    for node in list(network.graph.nodes):
        before = _layer_before(node)
        if before is None or calls[node.target] > 1 or calls[before.target] > 1:
            continue
        fused = _fuse(network.get_submodule(str(before.target)), network.get_submodule(str(node.target)))
        if fused is not None:
            nodes.attach(network, str(before.target), fused)
            node.replace_all_uses_with(before)
            network.graph.erase_node(node)
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def _layer_before(node: fx.Node) -> fx.Node | None:
    """The layer whose result only this layer reads; None where there is none."""
    before = node.args[0] if node.op == "call_module" else None
    if isinstance(before, fx.Node) and before.op == "call_module" and len(before.users) == 1:
        return before
    return None


def _fuse(layer: nn.Module, norm: nn.Module) -> nn.Module | None:
    """A layer and the batch norm behind it as one layer; None if they cannot be fused."""
    if type(layer) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
        return fuse_conv_bn_eval(layer, norm)
    if type(layer) is nn.ConvTranspose2d and layer.groups == 1 and type(norm) is nn.BatchNorm2d:
        return fuse_conv_bn_eval(layer, norm, transpose=True)
    if type(layer) is nn.Linear and type(norm) is nn.BatchNorm1d:
        return fuse_linear_bn_eval(layer, norm)
    return None


def _write_in_place(network: fx.GraphModule) -> None:
    """Let sums and rectifiers overwrite an input that only they read: allocating memory costs more than they do."""
    for node in list(network.graph.nodes):
        sources = node.all_input_nodes
        in_place = operator.iadd if is_sum(network, node) else _IN_PLACE.get(node_target(network, node))
        overwritten = next((source for source in sources if _may_be_overwritten(network, source, node)), None)
        if in_place is not None and overwritten is not None:
            others = [source for source in sources if source is not overwritten]
            with network.graph.inserting_before(node):
                new = network.graph.call_function(in_place, (overwritten, *others))
            new.meta = node.meta
            node.replace_all_uses_with(new)
            network.graph.erase_node(node)
    network.delete_all_unused_submodules()
    network.recompile()


def _may_be_overwritten(network: fx.GraphModule, source: fx.Node, reader: fx.Node) -> bool:
    shape = reader.meta.get("shape")
    same_shape = shape is not None and source.meta.get("shape") == shape
    return same_shape and len(source.users) == 1 and node_target(network, source) in _OWNERS
