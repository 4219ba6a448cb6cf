"""Accuracy, and how far a measured share can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.utils.finite import finite_logits


@torch.no_grad()
def accuracy(
    predict: Callable[[Tensor], Tensor], data: ImageSet, batch_size: int = 256, device: str | torch.device = "cpu"
) -> float:
    """Share of images whose largest logit is the right one, in [0, 1].

    Args:
        predict: normalised images (B, C, H, W) -> logits (B, classes), in eval mode.
        data: the images.
        batch_size: images at once.
        device: where `predict` wants its images.

    Raises:
        NotFiniteError: a logit is NaN or infinite, which is no prediction.
    """
    n_correct = 0
    for images, labels in data.batches(batch_size):
        logits = finite_logits(predict(images.to(device)))
        n_correct += int((logits.argmax(1).cpu() == labels).sum())
    return n_correct / len(data)


def auroc(scores: Tensor, positive: Tensor) -> float | None:
    """How well scores tell images of one kind from the others: the area under the receiver operating characteristic.

    That is the probability that an image of the kind scores higher than one of the others; equal scores count half.

    Args:
        scores: higher for what is more likely of the kind, (N,); not NaN.
        positive: which are, bool (N,).

    Returns:
        In [0, 1]; None where all images are of one kind.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts - 1) / 2)[place]  # the mean of the ranks of equal ones
    above = float(ranks[positive].sum()) - n_positive * (n_positive + 1) / 2
    return above / (n_positive * n_negative)


def wilson_interval(n_correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, "Probable Inference", JASA 1927)."""
    z = 1.959964
    centre = n_correct + z * z / 2
    half = z * math.sqrt(n_correct * (n - n_correct) / n + z * z / 4)
    return (centre - half) / (n + z * z), (centre + half) / (n + z * z)
