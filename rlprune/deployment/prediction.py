"""Predictions of a dynamic network, with the cost of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from rlprune.policies.passes import CostBreakdown


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for a batch, with the cost of each image.

    Attributes:
        labels: predicted classes, int64 (B,).
        probabilities: float32 in [0, 1], (B, classes); of the last pass, or of the passes' combined logits.
        profiles: index into the codebook of every pass, int64 (B, max_passes); -1 where there was none.
        keep_ratios: of the last pass, float32 in [0, 1], (B, G).
        passes: number of passes, int64 (B,).
        params: active parameters summed over passes, the policy included, int64 (B,).
        macs: MACs summed over passes, stem and policy included, int64 (B,).
    """

    labels: Tensor
    probabilities: Tensor
    profiles: Tensor
    keep_ratios: Tensor
    passes: Tensor
    params: Tensor
    macs: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Prediction]) -> Prediction:
        """The predictions for several batches as one."""
        if len(parts) == 1:
            return parts[0]
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def rows(self, order: Tensor) -> Prediction:
        """The predictions for the images at some indices, int64 (n,), in their order."""
        return Prediction(*(getattr(self, field.name)[order] for field in fields(self)))


def predicted(logits: Tensor, profiles: Tensor, keep_ratios: Tensor, prices: CostBreakdown) -> Prediction:
    """Build a prediction from the results of all passes.

    Args:
        logits: of the final predictions, float32 (B, classes).
        profiles: index into the codebook of every pass, int64 (B, max_passes); -1 where there was none.
        keep_ratios: of every profile of the codebook, float32 (K, G).
        prices: cost of the network's parts.
    """
    probabilities = logits.softmax(1)
    passes = (profiles >= 0).sum(1)
    last = profiles.gather(1, passes[:, None] - 1)[:, 0]
    compute = prices.of_passes(profiles)
    return Prediction(probabilities.argmax(1), probabilities, profiles, keep_ratios[last], passes, *compute)
