"""Adjustable width and depth: which level a share of the channels is, and which branches go first."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlprune.errors import LevelsError
from rlprune.layers import ElasticBatchNorm

if TYPE_CHECKING:
    from rlprune.elastic import ElasticCNN


def level_of(elastic: ElasticCNN, ratio: float) -> int:
    """The level that keeps this share of a group's channels.

    Raises:
        LevelsError: the network has no such keep ratio, or nothing is to be kept.
    """
    allowed = [kept for kept in elastic.keep_ratios if kept > 0]
    if ratio not in allowed:
        raise LevelsError(
            f"width {ratio} is none that this network was made for; allowed: {', '.join(map(str, allowed))} "
            "(others with ElasticCNN.from_model(..., keep_ratios=...); branches are dropped by set_depth)"
        )
    return elastic.keep_ratios.index(ratio)


def dropped_at(elastic: ElasticCNN, share: float) -> Tensor:
    """Which groups go when this share of the branches that can be dropped stays, rounded up, bool (G,).

    Raises:
        LevelsError: the share is outside [0, 1], or below 1 where no branch can be dropped.
    """
    if not 0 <= share <= 1:
        raise LevelsError(f"depth {share} is no share; allowed: 0 (no branch that can be dropped stays) to 1 (all do)")
    order = elastic.drop_order
    if not order and share < 1:
        reason = "its keep ratios do not include 0" if elastic.narrowest == 0 else "none of its groups is skippable"
        raise LevelsError(f"depth {share} is impossible, as this network can drop no branch: {reason}; allowed: 1")
    dropped = torch.zeros(elastic.n_groups, dtype=torch.bool)
    dropped[list(order[: len(order) - math.ceil(share * len(order) - 1e-9)])] = True
    return dropped


@torch.no_grad()
def by_scale(elastic: ElasticCNN) -> tuple[int, ...]:
    """The groups that can be dropped, those first whose branches end in the smallest batch-norm scales.

    Channels are ranked so by Liu et al., "Network Slimming", ICCV 2017. Where there is no norm, filters' norms count.
    """

    def scale(group: int) -> float:
        exits = [node for node in elastic.body.graph.nodes if node.name in elastic.groups[group].exits]
        layers = [elastic.body.get_submodule(node.target) for node in exits]
        return sum(_scale(layer) for layer in layers) / len(layers)

    return tuple(sorted(droppable(elastic), key=scale))


def _scale(layer: nn.Module) -> float:
    assert isinstance(layer.weight, Tensor)
    if isinstance(layer, ElasticBatchNorm):
        return float(layer.weight[-1].abs().mean())
    return float(layer.weight.flatten(1).norm(dim=1).mean())


@torch.no_grad()
def by_change(elastic: ElasticCNN, images: Tensor) -> tuple[int, ...]:
    """The groups that can be dropped, those first without which predictions change least.

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

    return tuple(sorted(droppable(elastic), key=change))


def droppable(elastic: ElasticCNN) -> list[int]:
    """Indices of the groups that can be dropped, from the input on."""
    return [index for index, group in enumerate(elastic.groups) if group.skippable and elastic.narrowest > 0]


class Setting(AbstractContextManager["ElasticCNN"]):
    """What a network was set to before it is set anew; as a context it ends with that.

    Args:
        elastic: the network.
        before: which groups it kept at which level, and which it dropped.
    """

    def __init__(self, elastic: ElasticCNN, *before: Tensor) -> None:
        self._elastic, self._before = elastic, before

    def __enter__(self) -> ElasticCNN:
        return self._elastic

    def __exit__(self, *_: Any) -> None:
        self._elastic._set(*self._before)
