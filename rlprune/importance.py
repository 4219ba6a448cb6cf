"""Which channels matter: a score per channel of a group, by which the elastic network ranks them.

A criterion is a function `(layers) -> scores`: the group's layers come as (layer, axis, channel of every position), the
scores are float32 (n_channels,), larger meaning more important.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlprune.errors import ModelError
from rlprune.layers import ElasticBatchNorm, ElasticLayer


class GroupLayer(NamedTuple):
    """A layer that holds a group's channels: on which axis, at which positions, and which channel each is."""

    layer: ElasticLayer
    axis: Literal["in", "out"]
    positions: Tensor
    channels: Tensor


Criterion = Callable[[Sequence[GroupLayer], int], Tensor]


def _weight_norm(layers: Sequence[GroupLayer], n_channels: int, order: int) -> Tensor:
    """Norm of all weights that make or read a channel, each layer's mean scaled to one."""
    scores = torch.zeros(n_channels)
    for layer, axis, positions, channels in layers:
        if isinstance(layer, ElasticBatchNorm):
            continue
        assert isinstance(layer.weight, Tensor)
        weight = layer.weight.detach().transpose(0, 1) if axis == "in" else layer.weight.detach()
        norms = weight[positions].flatten(1).norm(p=order, dim=1)
        scores.index_add_(0, channels, norms / norms.mean().clamp_min(1e-12))
    return scores


def l1(layers: Sequence[GroupLayer], n_channels: int) -> Tensor:
    """Sum of absolute weights over the whole group (Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017)."""
    return _weight_norm(layers, n_channels, 1)


def l2(layers: Sequence[GroupLayer], n_channels: int) -> Tensor:
    """Euclidean norm of the weights, over the whole group."""
    return _weight_norm(layers, n_channels, 2)


def bn_scale(layers: Sequence[GroupLayer], n_channels: int) -> Tensor:
    """Absolute batch-norm scale (Liu et al., "Network Slimming", ICCV 2017).

    Raises:
        ModelError: the group has no batch norm.
    """
    norms = [item for item in layers if isinstance(item.layer, ElasticBatchNorm)]
    if not norms:
        raise ModelError("importance 'bn_scale' needs a batch norm in every group; choose 'l1' or 'l2'")
    scores = torch.zeros(n_channels)
    for layer, _, positions, channels in norms:
        assert isinstance(layer, ElasticBatchNorm)
        scores.index_add_(0, channels, layer.weight.detach()[-1, positions].abs())
    return scores


CRITERIA: dict[str, Criterion] = {"l1": l1, "l2": l2, "bn_scale": bn_scale}


def criterion(name: str) -> Criterion:
    """The criterion of that name, of those that look at weights alone.

    Raises:
        ModelError: there is none.
    """
    if name not in CRITERIA:
        raise ModelError(
            f"importance {name!r} is unknown; allowed: {', '.join(CRITERIA)}, and with calibration images gradient, "
            "taylor and hessian"
        )
    return CRITERIA[name]
