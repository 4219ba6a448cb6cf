"""The observer: joins the predictions of passes, and lets an observation be made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.errors import RLPruneError
from rlprune.policies.named import made
from rlprune.policies.own import OwnObservation, fitted
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.protocol import CLIP, Observation, Seen, StemAndBelief, n_beliefs, pool_features
from rlprune.utils.finite import check_whole
from rlprune.utils.process import CachedProperty

_TRIED = 64
"""Images that an own observation is tried on."""


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

    Their entries are those of `rlprune.policies.protocol.StemAndBelief`, or of an observation of the user's own. Where
    there is a range of penalties, one more entry, the last, is the place of the image's penalty in it, in [0, 1].

    Attributes:
        mean: of the default observation, like `std` and `pool`; empty where there is an own one.
        std: likewise.
        n_classes: classes of the network.
        max_passes: the most passes an image may have.
        pool: cells per side of the grid; 0 leaves the features out.
        combine: weight, 0 or more, of the prediction before a pass, where the pass itself has weight 1: with 0 the last
            pass alone decides, with 1 two passes count alike, and of more the later ones count more.
        penalties: range of the penalty, which then changes from image to image; None for one fixed penalty, which
            observations leave out.
        own: the user's observation, in place of the default one.

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
    own: OwnObservation | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.combine, int | float) or not 0 <= self.combine <= 1e9:
            raise RLPruneError(f"combine={self.combine}: a number of 0 or more is needed")

    def __repr__(self) -> str:
        """In one line."""
        what = f"pool={self.pool}" if self.own is None else self.own.name
        penalties = "" if self.penalties is None else f"; penalties {self.penalties}"
        return (
            f"Observer({self.size} entries; {what}; {self.n_classes} classes; max_passes={self.max_passes}; "
            f"combine={self.combine:g}{penalties})"
        )

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
        observation: Any = None,
    ) -> Observer:
        """Let an observation measure what it needs on the images that train the policy, and try it on some of them.

        Args:
            elastic: the network whose stem is read.
            data: the images that train the policy.
            max_passes: as in the class, like the arguments that follow.
            pool: cells per side of the grid.
            combine: weight of the prediction before a pass.
            penalties: range of the penalty.
            observation: in place of the default one: an object as `rlprune.policies.protocol.Observation` has it, or
                its name, as for `rlprune.policies.named.made`.

        Raises:
            RLPruneError: `combine` is below 0 or not finite; or the observation fails, or gives what it must not.
        """
        check_whole(pool=pool, least=0, most=32)
        check_whole(max_passes=max_passes, least=1, most=1000)
        asked: Observation = StemAndBelief(pool) if observation is None else made("observation", observation)
        batches = stem_features(elastic, data)
        if observation is not None:  # whose tensors are on the CPU
            batches = (batch.float().cpu() for batch in batches)
        measured = fitted(asked, batches)
        n_classes = len(data.classes)
        if isinstance(measured, StemAndBelief) and type(measured) is StemAndBelief:
            return cls(measured.mean, measured.std, n_classes, max_passes, measured.pool, combine, penalties)
        own = OwnObservation.tried(measured, next(stem_features(elastic, data, _TRIED)), n_classes, max_passes)
        return cls(torch.zeros(0), torch.ones(0), n_classes, max_passes, 0, combine, penalties, own)

    @classmethod
    def without_features(cls, n_classes: int, max_passes: int, combine: float = 0.0) -> Observer:
        """The observer that sees of an image only what its passes gave; arguments as in the class."""
        return cls(torch.zeros(0), torch.ones(0), n_classes, max_passes, 0, combine)

    def fixed(self) -> Observer:
        """The observer for one fixed penalty, which observations leave out."""
        return replace(self, penalties=None)

    @CachedProperty
    def observation(self) -> Observation:
        """What makes the entries."""
        if self.own is not None:
            return self.own.observation
        default = StemAndBelief(self.pool)
        default.mean, default.std = self.mean, self.std
        return default

    @property
    def n_features(self) -> int:
        """How many numbers are kept of an image between its passes, K; 0 where images are not looked at."""
        return len(self.mean) if self.own is None else self.own.n_features

    @property
    def n_beliefs(self) -> int:
        """How many class probabilities the default observation holds."""
        return n_beliefs(self.n_classes)

    @property
    def size(self) -> int:
        """Length of an observation, D."""
        n_entries = len(self.mean) + self.n_beliefs + 4 if self.own is None else self.own.size
        return n_entries + (self.penalties is not None)

    @property
    def low(self) -> Tensor:
        """Smallest value of every entry, float32 (D,)."""
        entries = torch.full_like(self.mean, -CLIP) if self.own is None else self.own.low
        return torch.cat([entries, torch.zeros(self.size - len(entries))])

    @property
    def high(self) -> Tensor:
        """Largest value of every entry, float32 (D,)."""
        entries = torch.full_like(self.mean, CLIP) if self.own is None else self.own.high
        return torch.cat([entries, torch.ones(self.size - len(entries))])

    @property
    def cost(self) -> tuple[int, int]:
        """Parameters and MACs of an observation, which are paid for with the decision."""
        return (0, 0) if self.own is None else self.own.cost

    def features(self, stem_features: Tensor) -> Tensor:
        """What is kept of images: stem features float (B, F, H, W) -> float32 (B, K)."""
        if self.own is not None:
            return self.own.features(stem_features)
        default = self.observation
        assert isinstance(default, StemAndBelief)
        return default.features(stem_features)

    def believe(self, before: Tensor, logits: Tensor, passes: Tensor) -> Tensor:
        """The prediction after one more pass: its logits, or a weighted mean with those before if passes combine.

        Args:
            before: logits of the prediction so far, float32 (B, classes); ignored for images that had no pass.
            logits: of the new pass, float32 (B, classes).
            passes: how many were made before it, int64 (B,).

        Returns:
            Logits, float32 (B, classes).
        """
        return torch.where((passes > 0)[:, None], self.joined(before, logits), logits) if self.combine else logits

    def joined(self, before: Tensor, logits: Tensor) -> Tensor:
        """The same for images that all had a pass, float32 (B, classes) each."""
        if not self.combine:
            return logits
        share = self.combine / (self.combine + 1)
        if torch.compiler.is_compiling():  # torch 2.6 exports no `lerp`
            return logits + share * (before - logits)
        return logits.lerp(before, share)

    def beliefs(self, logits: Tensor) -> Tensor:
        """The predictions after each pass, for images that all make the same ones.

        Args:
            logits: of the passes, float32 (passes, N, classes).

        Returns:
            Logits, float32 (passes, N, classes).
        """
        found = [logits[0]]
        for of_pass in logits[1:]:
            found.append(self.joined(found[-1], of_pass))
        return torch.stack(found)

    def observe(
        self, features: Tensor, logits: Tensor, passes: Tensor, spent: Tensor, penalty: Tensor | None = None
    ) -> Tensor:
        """Build observations.

        Args:
            features: as `features` returns them, float32 (B, K).
            logits: of the prediction so far, float32 (B, classes); zeros for images that had no pass.
            passes: how many were made so far, int64 (B,).
            spent: MACs of the passes so far over the dense network's, float (B,).
            penalty: of each image, float (B,); needed where there is a range.

        Returns:
            float32 (B, D), entries as in the class.
        """
        entries = self.observation(Seen(features, logits, passes, spent, self.max_passes))
        if self.penalties is None:
            return entries
        assert penalty is not None
        return torch.cat([entries, self.penalties.place(penalty)[:, None].to(entries.dtype)], 1)


@torch.no_grad()
def stem_features(elastic: HasStem, data: ImageSet, batch_size: int = 512) -> Iterator[Tensor]:
    """Iterate over the stem features of a set, float (batch, F, H, W), on the network's device."""
    for images, _ in data.batches(batch_size):
        yield elastic.stem(images.to(elastic.widths.device))


def pooled_features(elastic: HasStem, data: ImageSet, pool: int, batch_size: int = 512) -> Iterator[Tensor]:
    """Iterate over the pooled stem features of a set, float32 (batch, F * pool * pool), on the CPU."""
    for features in stem_features(elastic, data, batch_size):
        yield pool_features(features, pool).cpu()
