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


def wilson_interval(n_correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, "Probable Inference", JASA 1927)."""
    z = 1.959964
    centre = n_correct + z * z / 2
    half = z * math.sqrt(n_correct * (n - n_correct) / n + z * z / 4)
    return (centre - half) / (n + z * z), (centre + half) / (n + z * z)
