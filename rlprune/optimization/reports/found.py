"""What a check found, in words: the lines that are printed before anything long begins, and warnings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rlprune.data.image_set import Splits
from rlprune.evaluation.results import Interval
from rlprune.optimization.goal import Goal
from rlprune.optimization.plan import Plan
from rlprune.optimization.reports.words import duration
from rlprune.optimization.subject import Subject
from rlprune.optimization.verdict.choice import CAUTION

_DISAGREEING = 0.02
"""Share of images, about, on which a network and a good slice of it are not both right or both wrong."""
_FEW = 100
"""Images of a kind below which decisions are poor."""
_DIFFERENT = 2
"""Validation images, about, on which a good slice and the network differ, at least, one way and the other."""


@dataclass(frozen=True)
class Found:
    """Figures of a check.

    Attributes:
        accuracy: of the network on the validation images that were tried, in [0, 1]; None if it has random weights.
        interval: of 95 %.
        n_tried: how many those are.
        n_groups: groups of channels that can be pruned.
        resolution: whether the resolution can be lowered, too.
        macs: multiply-adds of an image.
        stem: share of the first layers.
        always_runs: share of the narrowest slice.
        whole_ms: of a batch through the whole network, in PyTorch.
        narrowest_ms: the same of the narrowest slice.
    """

    accuracy: float | None
    interval: Interval
    n_tried: int
    n_groups: int
    resolution: bool
    macs: int
    stem: float
    always_runs: float
    whole_ms: float
    narrowest_ms: float


def lines(subject: Subject, goal: Goal, plan: Plan, found: Found) -> Iterator[str]:
    """What is printed before it begins, a line each."""
    splits = subject.splits
    yield f"goal: {goal.text}"
    if found.accuracy is not None:
        low, high = (100 * end for end in found.interval)
        yield (
            f"network: {subject.name}, right on {100 * found.accuracy:.1f} % of {found.n_tried} validation images (95 "
            f"%: {low:.1f} to {high:.1f}); not your number? stop here, and look at preprocessing and class order"
        )
    else:
        yield f"network: {subject.name} has random weights, so it is trained first"
    yield f"pictures: {' x '.join(map(str, subject.image_shape))}, {splits.network.preprocessing.text or 'as they are'}"
    yield (
        f"images: {subject.data}, {len(splits.network.classes)} classes; {len(splits.network)} train the network, "
        f"{len(splits.policy)} teach the decisions, {len(splits.validation)} choose, {len(splits.test)} test"
    )
    yield (
        f"pruning: {found.n_groups} {'group' if found.n_groups == 1 else 'groups'} of channels"
        f"{', and the resolution' * found.resolution}; every image costs at least {100 * found.always_runs:.1f} % of "
        f"{found.macs / 1e6:,.1f} M multiply-adds (the first layers are {100 * found.stem:.1f} %)"
    )
    yield (
        f"speed: the whole network takes {found.whole_ms:.2f} ms at batch {goal.batch} in PyTorch, its narrowest slice "
        f"{found.narrowest_ms:.2f} ms"
    )
    passes = [plan.pretrain_epochs, plan.slice_epochs, plan.profile_epochs]
    yield (
        f"training: {' + '.join(str(each) for each in passes if each)} passes over {len(splits.network)} images, in "
        f"batches of {plan.batch_size}{', mirrored at random' if plan.flip else ''}"
    )
    yield f"time: about {duration(plan.total)} (from a few measured steps)"


def _to_choose(drop: float) -> int:
    """Validation images that it takes to be sure that a network which loses nothing on them loses no more than that."""
    return math.ceil(100 * CAUTION * math.sqrt(2 + 2 * _DIFFERENT) / drop)


def warnings(splits: Splits, goal: Goal, found: Found) -> Iterator[str]:
    """What may make the result worth less, a line each."""
    n_test = len(splits.test)
    if goal.drop == 0:
        yield (
            "max_drop=0: only the network as it is meets that for sure; give what may be lost, such as 0.5, or leave "
            "it out"
        )
    if goal.drop:
        half = 196 * math.sqrt(_DISAGREEING / n_test)
        if half > goal.drop:
            enough = math.ceil(_DISAGREEING * (196 / goal.drop) ** 2)
            yield (
                f"{n_test} test images tell a drop to about {half:.1f} points, and {goal.drop:g} may be lost: whether "
                f"that is met can hardly be told; about {enough:,} would do"
            )
        sure = _to_choose(goal.drop)
        if len(splits.validation) < sure:
            yield (
                f"{len(splits.validation)} validation images are too few to be sure that only {goal.drop:g} points are "
                f"lost, so the choice may be for the network as it is; about {sure:,} would do: give more images, or "
                "some with --heldout"
            )
    if goal.max_ms is not None and goal.max_ms >= found.whole_ms:
        yield f"the network as it is takes {found.whole_ms:.3g} ms already, and {goal.max_ms:g} are allowed"
    if goal.min_speedup is not None and goal.min_speedup > found.whole_ms / found.narrowest_ms:
        yield (
            f"the narrowest slice is {found.whole_ms / found.narrowest_ms:.2g} times as fast here at batch "
            f"{goal.batch}: {goal.min_speedup:g} times will hardly be reached"
        )
    if goal.max_ms is not None and goal.max_ms < found.narrowest_ms:
        yield (
            f"the narrowest slice takes {found.narrowest_ms:.3g} ms here at batch {goal.batch} in PyTorch: "
            f"{goal.max_ms:g} ms will hardly be reached"
        )
    if min(len(splits.policy), len(splits.validation)) < _FEW:
        yield (
            f"{len(splits.policy)} images teach the decisions and {len(splits.validation)} choose; "
            "some hundreds of each are needed for good ones: give more images, or some with --heldout"
        )
