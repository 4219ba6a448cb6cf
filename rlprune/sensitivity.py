"""Which channels the loss depends on: scores from the gradients that calibration images give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlprune.data import ImageSet
from rlprune.errors import ModelError
from rlprune.importance import Criterion, GroupLayer
from rlprune.layers import ElasticBatchNorm, ElasticLayer

if TYPE_CHECKING:
    from rlprune.elastic import ElasticCNN

N_IMAGES = 128
"""So many calibration images are looked at, if there are as many."""


class Gradients(NamedTuple):
    """Of the cross-entropy by one weight tensor, over images: mean, mean of absolute values, mean of squares."""

    mean: Tensor
    absolute: Tensor
    square: Tensor


_Score = Callable[[Tensor, Gradients], Tensor]
SCORES: dict[str, _Score] = {
    "gradient": lambda weight, of: of.absolute,
    "taylor": lambda weight, of: (weight * of.mean).abs(),
    "hessian": lambda weight, of: weight.square() * of.square / 2,
}
"""What each weight adds to its channel's score.

| name | score | source |
|---|---|---|
| `gradient` | mean absolute gradient | |
| `taylor` | change of the loss without the weight, to first order | Molchanov et al., CVPR 2019 |
| `hessian` | to second order, by the diagonal of the Fisher matrix | LeCun et al., "Optimal Brain Damage", 1989 |
"""


def measure(elastic: ElasticCNN, data: ImageSet, n_images: int = N_IMAGES) -> dict[ElasticLayer, Gradients]:
    """Gradients of every elastic layer's weights, at full width and image by image.

    Args:
        elastic: in eval mode; left as it is.
        data: labelled images that the network was trained for.
        n_images: so many of them count, at even distances.

    Raises:
        ModelError: there are none.
    """
    layers = [layer for layer in elastic.elastic_layers().values() if not isinstance(layer, ElasticBatchNorm)]
    weights = [_weight(layer) for layer in layers]
    sums = [[torch.zeros_like(weight, requires_grad=False) for _ in Gradients._fields] for weight in weights]
    if not len(data):
        raise ModelError("there are no calibration images to rank channels by; give some")
    spread = torch.linspace(0, len(data) - 1, min(n_images, len(data))).round().long()
    for index in spread[:, None]:
        with torch.enable_grad():
            loss = F.cross_entropy(elastic(data.normalised(index), elastic.full), data.labels[index])
            gradients = torch.autograd.grad(loss, weights)
        for gradient, of in zip(gradients, sums, strict=True):
            for total, value in zip(of, (gradient, gradient.abs(), gradient.square()), strict=True):
                total += value / len(spread)
    return {layer: Gradients(*of) for layer, of in zip(layers, sums, strict=True)}


def criterion(name: str, elastic: ElasticCNN, data: ImageSet) -> Criterion:
    """The criterion of that name for a network; a channel's score is the sum over all weights that make or read it."""
    gradients, score_of = measure(elastic, data), SCORES[name]

    def score(layers: Sequence[GroupLayer], n_channels: int) -> Tensor:
        scores = torch.zeros(n_channels)
        for layer, axis, positions, channels in layers:
            if layer in gradients:
                each = score_of(_weight(layer).detach(), gradients[layer])
                rows = each.transpose(0, 1) if axis == "in" else each
                scores.index_add_(0, channels, rows[positions].flatten(1).sum(1))
        return scores

    return score


def _weight(layer: ElasticLayer) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight
