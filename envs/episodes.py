"""What worlds hand around: the state of episodes, and the outcome of a step."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(eq=False)
class Episodes:
    """The state of n episodes; every tensor has n rows.

    Attributes:
        images: index of each episode's image, int64.
        passes: made so far, int64.
        logits: of the prediction after the passes so far, float32 (n, classes).
        macs: MACs of the passes so far, int64.
        levels: of the last pass, int64 (n, G); -1 before the first.
        penalties: price of compute, float32.
    """

    images: Tensor
    passes: Tensor
    logits: Tensor
    macs: Tensor
    levels: Tensor
    penalties: Tensor

    def take(self, rows: Tensor) -> Episodes:
        """A copy of some rows."""
        return Episodes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def replace(self, rows: Tensor, fresh: Episodes) -> None:
        """Put fresh episodes into some rows."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(fresh, field.name)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a step did to n episodes; every tensor has n rows.

    Attributes:
        rewards: float32.
        done: whether the episode is over, bool.
        correct: whether the prediction that stands now is right, bool.
        predictions: its class, int64.
        params: active parameters of this step over the dense network's.
        macs: MACs likewise.
        levels: the levels chosen, int64 (n, G); -1 where the last prediction was accepted.
        passes: made so far.
    """

    rewards: Tensor
    done: Tensor
    correct: Tensor
    predictions: Tensor
    params: Tensor
    macs: Tensor
    levels: Tensor
    passes: Tensor
