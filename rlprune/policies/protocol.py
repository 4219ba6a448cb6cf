"""The protocol of observations, and the default one, which is written in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.utils.finite import check_whole

CLIP = 10.0
"""Standardised features are clipped to this many standard deviations."""
MAX_BELIEFS = 10
"""How many of the largest class probabilities an observation holds at most."""
MARGIN = 4.0
"""Margin between two logits that an observation shows as 0.5."""


class Seen(NamedTuple):
    """What an observation is made of, for n images before a decision.

    Attributes:
        features: what `features` of the observation gave for the images, float32 (n, K).
        logits: of the prediction so far, float32 (n, classes); zeros before the first pass.
        passes: how many were made so far, int64 (n,).
        spent: MACs so far, without decisions, over the dense network's, float32 (n,).
        max_passes: the most passes that an image may have.
    """

    features: Tensor
    logits: Tensor
    passes: Tensor
    spent: Tensor
    max_passes: int


class Observation(Protocol):
    """Makes what a policy sees of images out of tensors; the same function trains, runs in PyTorch and goes into ONNX.

    Each row depends on its own image alone. Where there is a range of penalties, one more entry is added, which says
    where the penalty lies in it. A class may have more, all of it optional:

    | member | what | without it |
    |---|---|---|
    | `features(stem_features)` | stem features float32 (n, F, H, W) -> float32 (n, K), once for each image | K is 0 |
    | `fit(batches)` | measures what it needs: batches of stem features of the images that train the policy | nothing |
    | `cost` | parameters and MACs of one observation, which are paid for with the decision | (0, 0) |

    What it measures are buffers of an `nn.Module`, which are stored with the policy. Its settings are the arguments of
    its constructor, kept as attributes of the same names, as those of a dataclass are; they are plain values.

    """

    @property
    def low(self) -> float | Sequence[float] | Tensor:
        """Smallest value of an observation; a number, or one for each of the D entries."""

    @property
    def high(self) -> float | Sequence[float] | Tensor:
        """Largest value likewise."""

    def __call__(self, seen: Seen) -> Tensor:
        """Observations float32 (n, D), each entry from `low` to `high`."""


class StemAndBelief(nn.Module):
    """The default observation: an image's stem features, the prediction so far, and the compute spent.

    | entries | what | range |
    |---|---|---|
    | F * pool * pool | the stem's features, averaged over a grid of cells, standardised, clipped | [-10, 10] |
    | min(classes, 10) | largest class probabilities so far, descending; 0 before the first pass | [0, 1] |
    | 1 | entropy of the prediction so far over its maximum; 0 before the first pass | [0, 1] |
    | 1 | margin m between the two largest logits, as m / (m + 4); 0 before the first pass | [0, 1] |
    | 1 | MACs spent on passes so far over the dense network's, over 2 * `max_passes` | [0, 1] |
    | 1 | passes made, over `max_passes` | [0, 1] |

    Args:
        pool: cells per side of the grid; 0 leaves the features out.

    Raises:
        RLPruneError: `pool` is not from 0 to 256.

    Attributes:
        mean: of the pooled features over the images that train the policy, float32 (F * pool * pool,).
        std: standard deviation of the same.
    """

    low = -CLIP
    high = CLIP
    mean: Tensor
    std: Tensor

    def __init__(self, pool: int = 2) -> None:
        check_whole(pool=pool, least=0, most=256)
        super().__init__()
        self.pool = pool
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("std", torch.ones(0))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Measure mean and standard deviation of the pooled features; batches are float (n, F, H, W)."""
        pooled = torch.cat([pool_features(batch, self.pool).cpu() for batch in batches])
        self.mean = pooled.mean(0)
        self.std = (pooled - self.mean).square().mean(0).sqrt().clamp_min(1e-4)

    def features(self, stem_features: Tensor) -> Tensor:
        """Pool and standardise stem features: float (n, F, H, W) -> float32 in [-10, 10], (n, F * pool * pool)."""
        pooled = pool_features(stem_features, self.pool).to(self.mean.device)
        return self.standardise(pooled) if self.pool else pooled

    def standardise(self, pooled: Tensor) -> Tensor:
        """Standardise and clip pooled features, float32 (n, F * pool * pool), to [-10, 10]."""
        return ((pooled - self.mean) / self.std).clamp(-CLIP, CLIP)

    def forward(self, seen: Seen) -> Tensor:
        """Observations float32 (n, D), entries as in the table of the class."""
        n_classes = seen.logits.shape[1]
        log_probabilities = seen.logits.log_softmax(1)
        entropy = (log_probabilities.exp() * log_probabilities).sum(1, keepdim=True) / -math.log(max(n_classes, 2))
        top = log_probabilities.topk(n_beliefs(n_classes), dim=1).values
        second = min(1, top.shape[1] - 1)
        margin = top[:, :1] - top[:, second : second + 1]  # of logits, as the probabilities of sure networks are all 1
        belief = torch.cat([top.exp(), entropy, margin / (margin + MARGIN)], 1).clamp(0, 1)
        history = [(seen.spent / (2 * seen.max_passes)).clamp(0, 1), seen.passes / seen.max_passes]
        return torch.cat(
            [seen.features, belief * (seen.passes > 0)[:, None], torch.stack(history, 1).to(seen.features.dtype)], 1
        )


def n_beliefs(n_classes: int) -> int:
    """How many class probabilities the default observation holds."""
    return min(n_classes, MAX_BELIEFS)


def pool_features(stem_features: Tensor, pool: int) -> Tensor:
    """Average features over a grid of cells: float (B, F, H, W) -> float32 (B, F * pool * pool); (B, 0) for pool 0."""
    if pool == 0:
        return stem_features[:, :0, 0, 0].float()
    return F.adaptive_avg_pool2d(stem_features.float(), pool).flatten(1)
