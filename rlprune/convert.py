"""Putting elastic layers in the place of ordinary ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from rlprune import graph
from rlprune.axes import Axis
from rlprune.groups import Group, norm_behind
from rlprune.layers import ElasticBatchNorm, ElasticConv2d, ElasticLayer, ElasticLinear


def make_elastic(body: fx.GraphModule, groups: Sequence[Group], n_levels: int, *, drops: bool) -> None:
    """Replace a body's convolutions, linear layers and batch norms in place by elastic ones.

    Args:
        body: what is changed.
        groups: the channel groups that run through it.
        n_levels: how many keep levels its norms meet.
        drops: whether level 0 keeps no channel, so that the norms at the ends of branches become constants.
    """

    def axis(layer: str, side: str, size: int) -> Axis:
        runs = [
            (index, run)
            for index, group in enumerate(groups)
            for member in group.members
            if member.layer == layer and member.axis == side
            for run in member.runs
        ]
        return Axis(size, runs)

    consumed_by: dict[str, int | None] = {}
    for node in [node for node in body.graph.nodes if node.op == "call_module"]:
        name, layer = str(node.target), body.get_submodule(node.target)
        elastic: ElasticLayer
        if type(layer) is nn.Conv2d:
            elastic = ElasticConv2d(layer, axis(name, "in", layer.in_channels), axis(name, "out", layer.out_channels))
        elif type(layer) is nn.Linear:
            elastic = ElasticLinear(layer, axis(name, "in", layer.in_features), axis(name, "out", layer.out_features))
        elif type(layer) is nn.BatchNorm2d or type(layer) is nn.BatchNorm1d:
            consumed, out = consumed_by.get(name), axis(name, "out", layer.num_features)
            dropped = drops and consumed is not None and node.name in groups[consumed].exits
            elastic = ElasticBatchNorm(layer, out, out.only_group if consumed is None else consumed, n_levels, dropped)
        else:
            continue
        behind = norm_behind(body, node)
        if behind is not None:
            consumed_by[str(behind.target)] = elastic.in_axis.only_group
        graph.attach(body, name, elastic)
