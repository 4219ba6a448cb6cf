"""Depth: which residual branches can be dropped, and in which order."""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor, fx, nn

from rlprune.elastic.body import is_elastic
from rlprune.elastic.channels import passes, same_size
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.elastic.module import ElasticModule
from rlprune.errors import LevelsError


def droppable_groups(elastic: ElasticModule) -> list[int]:
    """Indices of the groups that can be dropped, ordered from input to output."""
    return [index for index, group in enumerate(elastic.groups) if group.skippable and elastic.narrowest > 0]


def dropped_at(elastic: ElasticModule, order: tuple[int, ...], share: float) -> Tensor:
    """Which groups are dropped when a share of the droppable branches stays, bool (G,).

    Args:
        elastic: the network.
        order: the groups that can be dropped, in the order in which they are dropped.
        share: of them, how many stay, in [0, 1]; their number is rounded up.

    Raises:
        LevelsError: the share is outside [0, 1], or below 1 where no branch can be dropped.
    """
    if not 0 <= share <= 1:
        raise LevelsError(f"depth {share} is no share; allowed: 0 (no branch that can be dropped stays) to 1 (all do)")
    if not order and share < 1:
        reason = "its keep ratios do not include 0" if elastic.narrowest == 0 else "none of its groups is skippable"
        raise LevelsError(f"depth {share} is impossible, as this network can drop no branch: {reason}; allowed: 1")
    n_dropped = len(order) - math.ceil(share * len(order) - 1e-9)
    dropped = torch.zeros(elastic.n_groups, dtype=torch.bool)
    dropped[list(order[:n_dropped])] = True
    return dropped


@torch.no_grad()
def order_by_scale(elastic: ElasticModule) -> tuple[int, ...]:
    """The groups that can be dropped, ordered by the batch-norm scales that their branches end in, smallest first.

    Liu et al., "Network Slimming", ICCV 2017, rank channels that way. Where a branch ends without a batch norm, the
    mean norm of the filters counts. Layer scales behind either multiply it; gates, which depend on images, do not.
    """

    def scale(group: int) -> float:
        exits = [node for node in elastic.body.graph.nodes if node.name in elastic.groups[group].exits]
        return sum(_branch_scale(elastic.body, node) for node in exits) / len(exits)

    return tuple(sorted(droppable_groups(elastic), key=scale))


@torch.no_grad()
def order_by_change(elastic: ElasticModule, images: Tensor) -> tuple[int, ...]:
    """The groups that can be dropped, ordered by how much predictions change without them, smallest first.

    Args:
        elastic: in eval mode.
        images: normalised, float (B, C, H, W).

    Raises:
        LevelsError: there are no images.
    """
    if not len(images):
        raise LevelsError("there are no images to rank branches by; some hundreds are enough")
    features = elastic.stem(images)
    whole = elastic.run_body(features, elastic.full).log_softmax(1)

    def change(group: int) -> float:
        """Mean Kullback-Leibler divergence of the predictions without a group from those of the whole network."""
        profile = elastic.full
        profile[group] = 0
        without = elastic.run_body(features, profile).log_softmax(1)
        return float((whole.exp() * (whole - without)).sum(1).mean())

    return tuple(sorted(droppable_groups(elastic), key=change))


def _branch_scale(body: fx.GraphModule, node: fx.Node) -> float:
    """The scale of the last layer with a width before a node, and of the free parameters that multiply it behind."""
    factor = 1.0
    while not is_elastic(body, node):
        sources = node.all_input_nodes
        factor *= math.prod(_mean(body, source) for source in sources if source.op == "get_attr")
        node = next(source for source in sources if _leads_to(body, source, node))
    return factor * _scale(body.get_submodule(str(node.target)))


def _leads_to(body: fx.GraphModule, source: fx.Node, node: fx.Node) -> bool:
    return (is_elastic(body, source) and same_size(source, node)) or passes(body, node, source)


def _mean(body: fx.GraphModule, attribute: fx.Node) -> float:
    return float(operator.attrgetter(str(attribute.target))(body).abs().mean())


def _scale(layer: nn.Module) -> float:
    assert isinstance(layer.weight, Tensor)
    if isinstance(layer, ElasticBatchNorm):
        return float(layer.weight[-1].abs().mean())
    return float(layer.weight.flatten(1).norm(dim=1).mean())
