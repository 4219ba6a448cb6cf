"""Figures of rows and classes, and how the time of slices follows from their multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.metrics import wilson_interval
from rlprune.optimization.goal import Goal
from rlprune.optimization.result import Bounds, ClassCost, Row
from rlprune.optimization.verdict.choice import drop_interval
from rlprune.optimization.verdict.figures import DENSE, KINDS, TITLES, Answers, Times, right_of
from rlprune.profiles.cost import Cost


@dataclass(frozen=True)
class TimeOfShare:
    """How the time of a batch follows from mean multiply-adds, both over the dense network's: between measured slices.

    Attributes:
        shares: multiply-adds, ascending.
        times: of each.
    """

    shares: tuple[float, ...]
    times: tuple[float, ...]

    def at(self, share: float) -> float:
        """The time at a share of the multiply-adds."""
        return float(np.interp(share, self.shares, self.times))

    def share_at(self, time: float) -> float:
        """The share of the multiply-adds that takes so much time; of several the largest."""
        fitting = [share for share, taken in zip(self.shares, self.times, strict=True) if taken <= time]
        rising = np.maximum.accumulate(self.times)
        return max([float(np.interp(time, rising, self.shares)), *fitting])


def pace_of(shares: Sequence[float], times: Sequence[float], whole_ms: float) -> TimeOfShare:
    """How time follows from multiply-adds.

    Args:
        shares: multiply-adds of slices over the dense network's, ascending.
        times: milliseconds of a batch through each.
        whole_ms: through the network as it is, in its fastest form.
    """
    return TimeOfShare(tuple(shares), tuple(ms / whole_ms for ms in times))


def make_row(
    name: str,
    backend: str,
    answers: Answers,
    dense_right: Tensor,
    labels: Tensor,
    times: Times,
    dense_ms: float,
    validation_drop: float,
    goal: Goal,
) -> Row:
    """A row of the table from what a network answered to the test images."""
    right = right_of(labels, answers)
    n = len(labels)
    drop = 100 * float(dense_right.double().mean() - right.double().mean())
    share = float(answers.shares.mean())
    return Row(
        name=name,
        title=TITLES[name],
        backend=backend,
        kind=KINDS[name],
        accuracy=float(right.double().mean()),
        accuracy_interval=wilson_interval(int(right.sum()), n),
        drop=drop,
        drop_interval=(0.0, 0.0) if name in DENSE else drop_interval(dense_right, right),
        macs_share=share,
        ms=times.ms,
        ms_low=times.low,
        ms_high=times.high,
        speedup=dense_ms / times.ms,
        validation_drop=validation_drop,
        meets=_meets(name, goal, drop, times.ms, dense_ms, share),
    )


def _meets(name: str, goal: Goal, drop: float, ms: float, dense_ms: float, share: float) -> bool:
    """Whether figures are within a goal; where it only says what may be lost, the network as it is saves nothing."""
    within = [
        goal.bounds_cost or name not in DENSE,
        goal.drop is None or drop <= goal.drop + 1e-9,
        ms <= goal.ms_allowed(dense_ms),
        goal.max_macs is None or share <= goal.max_macs,
    ]
    return all(within)


def class_costs(test: ImageSet, answers: Answers, dense_right: Tensor) -> list[ClassCost]:
    """What the test images of each class cost; classes without any are left out."""
    right = right_of(test.labels, answers)
    found = []
    for label, name in enumerate(test.classes):
        here = test.labels == label
        if here.any():
            found.append(
                ClassCost(
                    name=name,
                    n_images=int(here.sum()),
                    accuracy=float(right[here].double().mean()),
                    dense_accuracy=float(dense_right[here].double().mean()),
                    macs_share=float(answers.shares[here].mean()),
                )
            )
    return found


def bounds_of(elastic: ElasticCNN, pace: TimeOfShare, deciding: float | None) -> Bounds:
    """What bounds the saving, in figures."""
    cost = Cost(elastic)
    return Bounds(
        stem_share=float(cost.stem.macs / cost.dense.macs),
        always_runs=pace.shares[0],
        narrowest_ms_share=pace.times[0],
        decision_ms=deciding,
    )
