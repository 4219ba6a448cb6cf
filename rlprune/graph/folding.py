"""Networks as they run fastest: the same numbers with fewer layers and less memory, for inference only."""

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
"""What gives a tensor that nobody else holds."""


def fold_for_teacher(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode that answers faster: without norms, unless its forward cannot be traced."""
    try:
        return fold_norms(nn.Sequential(tracing.trace(network)))
    except ModelError:
        return copy.deepcopy(network).eval()


def optimize_for_inference(network: nn.Sequential) -> nn.Sequential:
    """A slice as it runs fastest: no norms, sums in place, in the memory format that convolutions like best."""
    folded = fold_norms(network)
    for part in folded.children():
        assert isinstance(part, fx.GraphModule)
        join_shifts(part)
        _write_in_place(part)
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def fold_norms(network: nn.Sequential) -> nn.Sequential:
    """A copy of a network without the batch norms that follow a convolution or a linear layer.

    Args:
        network: in eval mode, a sequence of graphs as `ElasticCNN.slice` gives it.

    Returns:
        A network that gives the same to rounding.
    """
    folded = nn.Sequential()
    for name, part in copy.deepcopy(network).named_children():
        assert isinstance(part, fx.GraphModule)
        folded.add_module(name, fold(part))
    return folded.eval()


def fold(network: fx.GraphModule) -> fx.GraphModule:
    """The same for one graph, in eval mode, which is changed in place and returned."""
    calls = Counter(node.target for node in network.graph.nodes if node.op == "call_module")
    for node in list(network.graph.nodes):
        before = node.args[0] if node.op == "call_module" else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        if calls[node.target] > 1 or calls[before.target] > 1:
            continue
        layer, norm = network.get_submodule(str(before.target)), network.get_submodule(str(node.target))
        if type(layer) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            nodes.attach(network, str(before.target), fuse_conv_bn_eval(layer, norm))
        elif type(layer) is nn.Linear and type(norm) is nn.BatchNorm1d:
            nodes.attach(network, str(before.target), fuse_linear_bn_eval(layer, norm))
        else:
            continue
        node.replace_all_uses_with(before)
        network.graph.erase_node(node)
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def _write_in_place(network: fx.GraphModule) -> None:
    """Let sums and rectifiers overwrite what they alone read: new memory costs more than they do."""
    for node in list(network.graph.nodes):
        called, sources = node_target(network, node), node.all_input_nodes
        in_place = operator.iadd if is_sum(network, node) else _IN_PLACE.get(called)
        mine = next((source for source in sources if _may_be_overwritten(network, source, node)), None)
        if in_place is not None and mine is not None:
            with network.graph.inserting_before(node):
                new = network.graph.call_function(in_place, (mine, *(other for other in sources if other is not mine)))
            new.meta = node.meta
            node.replace_all_uses_with(new)
            network.graph.erase_node(node)
    network.delete_all_unused_submodules()
    network.recompile()


def _may_be_overwritten(network: fx.GraphModule, source: fx.Node, reader: fx.Node) -> bool:
    shape = reader.meta.get("shape")
    alike = shape is not None and source.meta.get("shape") == shape
    return alike and len(source.users) == 1 and node_target(network, source) in _OWNERS
