"""What a dynamic network says of a batch, and what each image cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlprune.policies.passes import CostBreakdown


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a dynamic network says of a batch, and what each image cost.

    Attributes:
        labels: int64 (B,).
        probabilities: float32 (B, classes); of the last pass, or of all passes' logits together if they combine.
        profiles: index into the codebook of every pass, int64 (B, max_passes); -1 where there was none.
        keep_ratios: of the last pass, float32 (B, G).
        passes: int64 (B,).
        params: active parameters summed over passes, the policy included, int64 (B,).
        macs: multiply-adds likewise, int64 (B,).
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
        """Those of several batches as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(*map(torch.cat, zip(*(part.__dict__.values() for part in parts), strict=True)))


def predicted(logits: Tensor, profiles: Tensor, keep_ratios: Tensor, prices: CostBreakdown) -> Prediction:
    """What follows from logits (B, classes) and the profiles of all passes (B, max_passes); ratios are (K, G)."""
    probabilities, passes = logits.softmax(1), (profiles >= 0).sum(1)
    last = profiles.gather(1, passes[:, None] - 1)[:, 0]
    compute = prices.of_passes(profiles)
    return Prediction(probabilities.argmax(1), probabilities, profiles, keep_ratios[last], passes, *compute)
