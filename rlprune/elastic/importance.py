"""Importance criteria: a score for each channel of a group, by which the elastic network ranks them.

A criterion is a function `(layers, n_channels) -> scores`: the group's layers come as `GroupLayer`, the scores are
float32 (n_channels,), larger meaning more important.

| name | score | computed from | source |
|---|---|---|---|
| `l1` | sum of absolute weights | weights | Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 |
| `l2` | Euclidean norm of weights | weights | |
| `bn_scale` | absolute scale of batch norms | weights | Liu et al., "Network Slimming", ICCV 2017 |
| `gradient` | mean absolute gradient | images | |
| `taylor` | change of the loss without the weight, to first order | images | Molchanov et al., CVPR 2019 |
| `hessian` | to second order, by the diagonal of the Fisher matrix | images | LeCun et al., "Optimal Brain Damage" |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.layers import ElasticLayer, GroupLayer
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.elastic.module import ElasticModule
from rlprune.errors import ModelError

Criterion = Callable[[Sequence[GroupLayer], int], Tensor]
"""A ranking of your own: the layers that hold a group's channels, and their number -> importance (n_channels,)."""
N_IMAGES = 128
"""How many calibration images are used at most."""


def rank(elastic: ElasticModule, score: Criterion) -> None:
    """Order the channels of every group by descending importance, in place; full keep computes the same as before.

    Args:
        elastic: the network.
        score: the criterion.
    """
    for index, order in enumerate(orders(elastic, score)):
        reorder(elastic, index, order)


def orders(elastic: ElasticModule, score: Criterion) -> list[Tensor]:
    """For each group the order of its channels, the most important first, int64 (n_channels,).

    Args:
        elastic: the network; not changed.
        score: the criterion.
    """
    scores = [
        torch.zeros(group.n_channels) if group.is_resolution else score(elastic.layers_of(index), group.n_channels)
        for index, group in enumerate(elastic.groups)
    ]
    return [of_group.argsort(descending=True, stable=True) for of_group in scores]


def reorder(elastic: ElasticModule, group: int, order: Tensor) -> None:
    """Put the channels of a group into another order, in place; full keep computes the same as before.

    Args:
        elastic: the network.
        group: index of the group.
        order: the old channel for every new one, int64 (n_channels,).
    """
    for layer in elastic.elastic_layers().values():
        layer.reorder(group, order)


def check_known(name: str) -> None:
    """Make sure that a criterion exists.

    Raises:
        ModelError: it does not.
    """
    if name not in (*WEIGHT_CRITERIA, *GRADIENT_SCORES):
        raise ModelError(
            f"importance {name!r} is unknown; allowed: {', '.join(WEIGHT_CRITERIA)}, and with calibration images "
            "gradient, taylor and hessian"
        )


def check_importance(name: str, calibration: ImageSet | None) -> None:
    """Make sure that a criterion exists, and has calibration images if it needs them.

    Args:
        name: of the criterion.
        calibration: labelled images, if there are any.

    Raises:
        ModelError: the name is unknown, or the criterion needs images and there are none.
    """
    check_known(name)
    if name in GRADIENT_SCORES and calibration is None:
        raise ModelError(
            f"importance {name!r} needs calibration images, and none are given; `rlprune adapt` uses those that "
            "it trains on"
        )


def criterion(name: str, elastic: ElasticModule, calibration: ImageSet | None = None) -> Criterion:
    """A criterion by name.

    Args:
        name: one of the table above.
        elastic: the network whose channels are ranked, in eval mode.
        calibration: labelled images that the network was trained for; only criteria computed from images need them.

    Raises:
        ModelError: there is no such criterion, or it needs images.
    """
    check_importance(name, calibration)
    if name in WEIGHT_CRITERIA:
        return WEIGHT_CRITERIA[name]
    assert calibration is not None
    return gradient_criterion(name, elastic, calibration)


def _weight_norm(layers: Sequence[GroupLayer], n_channels: int, order: int) -> Tensor:
    """Norm of all weights that produce or read a channel, each layer's mean scaled to one."""
    scores = torch.zeros(n_channels)
    for layer, axis, positions, channels in layers:
        if layer.filter_dims is None:
            continue
        norms = layer.filters(_weight(layer).detach(), axis)[positions].norm(p=order, dim=1)
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


WEIGHT_CRITERIA: dict[str, Criterion] = {"l1": l1, "l2": l2, "bn_scale": bn_scale}


class Gradients(NamedTuple):
    """Gradients of the cross-entropy by one weight tensor, summarised over images, each of the weight's shape.

    Attributes:
        mean: mean over images.
        absolute: mean of absolute values.
        square: mean of squares.
    """

    mean: Tensor
    absolute: Tensor
    square: Tensor


_Score = Callable[[Tensor, Gradients], Tensor]
GRADIENT_SCORES: dict[str, _Score] = {
    "gradient": lambda weight, of: of.absolute,
    "taylor": lambda weight, of: (weight * of.mean).abs(),
    "hessian": lambda weight, of: weight.square() * of.square / 2,
}
"""What each weight adds to its channel's score."""


def measure_gradients(
    elastic: ElasticModule, data: ImageSet, n_images: int = N_IMAGES
) -> dict[ElasticLayer, Gradients]:
    """Gradients of the weights of every layer, at full width, image by image.

    Args:
        elastic: in eval mode; not changed.
        data: labelled images that the network was trained for.
        n_images: how many of them are used at most, evenly spaced.

    Returns:
        For each convolution and linear layer the summary of its weight's gradients.

    Raises:
        ModelError: there are no images.
    """
    layers = [layer for layer in elastic.elastic_layers().values() if layer.filter_dims is not None]
    weights = [_weight(layer) for layer in layers]
    sums = [[torch.zeros_like(weight, requires_grad=False) for _ in Gradients._fields] for weight in weights]
    if not len(data):
        raise ModelError("there are no calibration images to rank channels by; give some")
    spread = torch.linspace(0, len(data) - 1, min(n_images, len(data))).round().long()
    for index in spread[:, None]:
        with torch.enable_grad():
            loss = F.cross_entropy(elastic(data.normalised(index), elastic.full), data.labels[index])
            gradients = torch.autograd.grad(loss, weights)
        for gradient, totals in zip(gradients, sums, strict=True):
            for total, value in zip(totals, (gradient, gradient.abs(), gradient.square()), strict=True):
                total += value / len(spread)
    return {layer: Gradients(*totals) for layer, totals in zip(layers, sums, strict=True)}


def gradient_criterion(name: str, elastic: ElasticModule, data: ImageSet) -> Criterion:
    """A criterion computed from gradients: a channel's score is the sum over all weights that produce or read it.

    Args:
        name: `gradient`, `taylor` or `hessian`.
        elastic: the network whose channels are ranked, in eval mode.
        data: labelled images that the network was trained for.

    Raises:
        ModelError: there are no images.
    """
    gradients = measure_gradients(elastic, data)
    score_of = GRADIENT_SCORES[name]

    def score(layers: Sequence[GroupLayer], n_channels: int) -> Tensor:
        scores = torch.zeros(n_channels)
        for layer, axis, positions, channels in layers:
            if layer in gradients:
                per_weight = score_of(_weight(layer).detach(), gradients[layer])
                scores.index_add_(0, channels, layer.filters(per_weight, axis)[positions].sum(1))
        return scores

    return score


def _weight(layer: ElasticLayer) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight
