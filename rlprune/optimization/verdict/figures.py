"""What is known of a row: what it answers, what that costs, how long it takes; and what rows are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet

TITLES = {
    "dense": "yours (eager)",
    "dense folded": "yours (folded)",
    "dense onnxruntime": "yours (onnxruntime)",
    "dense int8": "yours (int8)",
    "static": "static",
    "static int8": "static (int8)",
    "cascade": "cascade",
    "rlprune": "rlprune",
    "rlprune int8": "rlprune (int8)",
}
"""What the table calls each row, in its order, which is that of what asks least of whoever deploys it."""
KINDS = {
    "dense": "dense",
    "dense folded": "dense",
    "dense onnxruntime": "dense",
    "dense int8": "int8",
    "static": "static",
    "static int8": "int8",
    "cascade": "dynamic",
    "rlprune": "dynamic",
    "rlprune int8": "int8",
}
"""What is deployed if a row is."""
DENSE = ("dense", "dense folded", "dense onnxruntime")
"""Rows of the network as it is, in float32."""


class Answers(NamedTuple):
    """What images are answered.

    Attributes:
        labels: int64 (N,).
        shares: MACs over the dense network's, float64 (N,).
    """

    labels: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Times:
    """Milliseconds of a batch: the median, and the lower and upper quartile."""

    ms: float
    low: float
    high: float


def right_of(labels: Tensor, answers: Answers) -> Tensor:
    """Whether answers are right, bool (N,)."""
    return torch.eq(labels, answers.labels)


@torch.inference_mode()
def answers_of(network: nn.Module, images: ImageSet, share: float) -> Answers:
    """What an ordinary network answers to images.

    Args:
        network: normalised images (B, C, H, W) -> logits (B, classes), in eval mode.
        images: the images.
        share: its multiply-adds over the dense network's.
    """
    logits = torch.cat([network(pixels) for pixels, _ in images.batches(images.at_once)])
    return Answers(logits.argmax(1), torch.full((len(images),), share, dtype=torch.float64))
