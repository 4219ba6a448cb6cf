"""Observations of the policy: an image's stem features, the prediction so far, and the compute spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.errors import RLPruneError
from rlprune.policies.penalties import PenaltyRange
from rlprune.utils.finite import check_whole

CLIP = 10.0
"""Standardised features are clipped to this many standard deviations."""
MAX_BELIEFS = 10
"""How many of the largest class probabilities an observation holds at most."""
MARGIN = 4.0
"""Margin between two logits that an observation shows as 0.5."""


class HasStem(Protocol):
    """What observations need of an elastic network."""

    @property
    def widths(self) -> Tensor:
        """A tensor of it, which tells where it is."""

    @property
    def stem(self) -> Callable[[Tensor], Tensor]:
        """Normalised images (B, C, H, W) -> features (B, F, H', W')."""


@dataclass(frozen=True, eq=False)
class Observer:
    """Combines the logits of an image's passes into the prediction so far, and builds observations, float32 (B, D).

    | entries | what | range |
    |---|---|---|
    | F * pool * pool | the stem's features, averaged over a grid of cells, standardised, clipped | [-10, 10] |
    | min(classes, 10) | largest class probabilities so far, descending; 0 before the first pass | [0, 1] |
    | 1 | entropy of the prediction so far over its maximum; 0 before the first pass | [0, 1] |
    | 1 | margin m between the two largest logits, as m / (m + 4); 0 before the first pass | [0, 1] |
    | 1 | MACs spent on passes so far over the dense network's, over 2 * `max_passes` | [0, 1] |
    | 1 | passes made, over `max_passes` | [0, 1] |
    | 1 | the penalty's position in its range, if there is a range | [0, 1] |

    Attributes:
        mean: of the pooled features over the images that train the policy, float32 (F * pool * pool,).
        std: standard deviation of the same.
        n_classes: classes of the network.
        max_passes: the most passes an image may have.
        pool: cells per side of the grid; 0 leaves the features out.
        combine: weight, 0 or more, of the prediction before a pass, where the pass itself has weight 1: with 0 the last
            pass alone decides, with 1 two passes count alike, and of more the later ones count more.
        penalties: range of the penalty, which then changes from image to image; None for one fixed penalty, which
            observations leave out.

    Raises:
        RLPruneError: `combine` is below 0 or not finite.
    """

    mean: Tensor
    std: Tensor
    n_classes: int
    max_passes: int
    pool: int
    combine: float = 0.0
    penalties: PenaltyRange | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.combine, int | float) or not 0 <= self.combine <= 1e9:
            raise RLPruneError(f"combine={self.combine}: a number of 0 or more is needed")

    @classmethod
    def fit(
        cls,
        elastic: HasStem,
        data: ImageSet,
        *,
        max_passes: int = 1,
        pool: int = 2,
        combine: float = 0.0,
        penalties: PenaltyRange | None = None,
    ) -> Observer:
        """Measure the features' mean and standard deviation on the images that train the policy.

        Args:
            elastic: the network whose stem is read.
            data: the images that train the policy.
            max_passes: as in the class, like the arguments that follow.
            pool: cells per side of the grid.
            combine: weight of the prediction before a pass.
            penalties: range of the penalty.

        Raises:
            RLPruneError: `combine` is below 0 or not finite.
        """
        check_whole(pool=pool, least=0, most=32)
        check_whole(max_passes=max_passes, least=1, most=1000)
        pooled = torch.cat(list(pooled_features(elastic, data, pool)))
        mean = pooled.mean(0)
        std = (pooled - mean).square().mean(0).sqrt().clamp_min(1e-4)
        return cls(mean, std, len(data.classes), max_passes, pool, combine, penalties)

    def fixed(self) -> Observer:
        """The observer for one fixed penalty, which observations leave out."""
        return replace(self, penalties=None)

    @property
    def n_beliefs(self) -> int:
        """How many class probabilities an observation holds."""
        return min(self.n_classes, MAX_BELIEFS)

    @property
    def size(self) -> int:
        """Length of an observation, D."""
        return len(self.mean) + self._n_shares

    @property
    def _n_shares(self) -> int:
        """Entries in [0, 1], which follow the features."""
        return self.n_beliefs + 4 + (self.penalties is not None)

    @property
    def low(self) -> Tensor:
        """Smallest value of every entry, float32 (D,)."""
        return torch.cat([torch.full_like(self.mean, -CLIP), torch.zeros(self._n_shares)])

    @property
    def high(self) -> Tensor:
        """Largest value of every entry, float32 (D,)."""
        return torch.cat([torch.full_like(self.mean, CLIP), torch.ones(self._n_shares)])

    def features(self, stem_features: Tensor) -> Tensor:
        """Pool and standardise stem features: float (B, F, H, W) -> float32 in [-10, 10], (B, F * pool * pool)."""
        pooled = pool_features(stem_features, self.pool).to(self.mean.device)
        return self.standardise(pooled) if self.pool else pooled

    def standardise(self, pooled: Tensor) -> Tensor:
        """Standardise and clip pooled features, float32 (B, F * pool * pool), to [-10, 10]."""
        return ((pooled - self.mean) / self.std).clamp(-CLIP, CLIP)

    def believe(self, before: Tensor, logits: Tensor, passes: Tensor) -> Tensor:
        """The prediction after one more pass: its logits, or a weighted mean with those before if passes combine.

        Args:
            before: logits of the prediction so far, float32 (B, classes); ignored for images that had no pass.
            logits: of the new pass, float32 (B, classes).
            passes: how many were made before it, int64 (B,).

        Returns:
            Logits, float32 (B, classes).
        """
        if not self.combine:
            return logits
        return logits.lerp(before, (passes > 0)[:, None] * (self.combine / (self.combine + 1)))

    def observe(
        self, features: Tensor, logits: Tensor, passes: Tensor, spent: Tensor, penalty: Tensor | None = None
    ) -> Tensor:
        """Build observations.

        Args:
            features: as `features` returns them, float32 (B, F * pool * pool).
            logits: of the prediction so far, float32 (B, classes); ignored for images that had no pass.
            passes: how many were made so far, int64 (B,).
            spent: MACs of the passes so far over the dense network's, float (B,).
            penalty: of each image, float (B,); needed where there is a range.

        Returns:
            float32 (B, D), entries as in the table of the class.
        """
        log_probabilities = logits.log_softmax(1)
        entropy = (log_probabilities.exp() * log_probabilities).sum(1, keepdim=True) / -math.log(max(self.n_classes, 2))
        top = log_probabilities.topk(self.n_beliefs, dim=1).values
        second = min(1, self.n_beliefs - 1)
        margin = top[:, :1] - top[:, second : second + 1]  # of logits, as the probabilities of sure networks are all 1
        prediction = torch.cat([top.exp(), entropy, margin / (margin + MARGIN)], 1).clamp(0, 1) * (passes > 0)[:, None]
        history = [(spent / (2 * self.max_passes)).clamp(0, 1), passes / self.max_passes]
        if self.penalties is not None:
            assert penalty is not None
            history.append(self.penalties.place(penalty))
        return torch.cat([features, prediction, torch.stack(history, 1).to(features.dtype)], 1)


def pool_features(stem_features: Tensor, pool: int) -> Tensor:
    """Average features over a grid of cells: float (B, F, H, W) -> float32 (B, F * pool * pool); (B, 0) for pool 0."""
    if pool == 0:
        return stem_features[:, :0, 0, 0].float()
    return F.adaptive_avg_pool2d(stem_features.float(), pool).flatten(1)


@torch.no_grad()
def pooled_features(elastic: HasStem, data: ImageSet, pool: int, batch_size: int = 512) -> Iterator[Tensor]:
    """Iterate over the pooled stem features of a set, float32 (batch, F * pool * pool), on the CPU."""
    for images, _ in data.batches(batch_size):
        yield pool_features(elastic.stem(images.to(elastic.widths.device)), pool).cpu()
