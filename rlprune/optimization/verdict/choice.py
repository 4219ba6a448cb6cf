"""What to deploy, by a rule that a program applies to figures of validation images. The test images choose nothing.

1. An option meets the goal if its drop, plus half a standard error of it, its time and its multiply-adds are within it.
2. Of those that do, the most accurate is best where time or multiply-adds are bounded; else the fastest.
3. A simpler option that meets the goal is taken instead where it is as good: within a standard error of the accuracy
   (of the same images), or within 5 % of the time. Simpler are, in this order: the network as it is, it in eight-bit
   integers, one small network, that in eight-bit integers, a threshold, learnt decisions.
4. If none meets it, or, where neither time nor multiply-adds are bounded, none but the network as it is, the nearest of
   the others: that of the smallest sum of relative excesses. It is recommended if it is at least 5 % faster than the
   network as it is and loses at most what is allowed; else the network is best left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rlprune.optimization.goal import Goal
from rlprune.optimization.verdict.figures import DENSE, TITLES

CAUTION = 0.5
"""Standard errors that are added to a drop before it is compared with the goal."""
SAME_TIME = 1.05
"""Times within this factor are taken for the same."""


@dataclass(frozen=True, eq=False)
class Option:
    """A network at a point, with its figures on the validation images.

    Attributes:
        name: of its row.
        right: whether its answer to each image is right, bool (N,).
        dense_right: the same of the network as it is.
        macs: mean multiply-adds over the network's.
        ms: milliseconds of a batch.
    """

    name: str
    right: Tensor
    dense_right: Tensor
    macs: float
    ms: float

    @property
    def drop(self) -> float:
        """Points lost."""
        return 100 * float(self.dense_right.double().mean() - self.right.double().mean())

    @property
    def drop_error(self) -> float:
        """Standard error of `drop`, in points."""
        return 100 * paired_error(self.dense_right, self.right)

    @property
    def cautious_drop(self) -> float:
        """Points lost, and half a standard error more; of the network as it is, 0."""
        return self.drop if self.name in DENSE else self.drop + CAUTION * self.drop_error


def paired_error(one: Tensor, other: Tensor) -> float:
    """Standard error of the difference between two shares of the same images, bool (N,) each.

    Two images more are counted on which they disagree, one either way: with none at all it would be 0.
    """
    n = len(one) + 2
    first = (int((one & ~other).sum()) + 1) / n
    second = (int((other & ~one).sum()) + 1) / n
    return math.sqrt((first + second - (first - second) ** 2) / n)


def drop_interval(dense_right: Tensor, right: Tensor) -> tuple[float, float]:
    """The 95 % interval of the points lost, of the same images answered by both, bool (N,) each.

    (Bonett & Price, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on Paired Data",
    2012.)
    """
    n = len(right) + 2
    lost = (int((dense_right & ~right).sum()) + 1) / n
    won = (int((right & ~dense_right).sum()) + 1) / n
    half = 1.959964 * paired_error(dense_right, right)
    return 100 * (lost - won - half), 100 * (lost - won + half)


def images_needed(dense_right: Tensor, right: Tensor, allowed: float) -> int:
    """How many test images it takes, about, to tell a drop from the one that is allowed; two digits of it count.

    Args:
        dense_right: whether the network as it is is right on each image, bool (N,).
        right: the same of the other one.
        allowed: points.
    """
    n = len(right)
    drop = 100 * float(dense_right.double().mean() - right.double().mean())
    distance = max(abs(allowed - drop), 0.1) / 100
    return _rounded((1.959964 * paired_error(dense_right, right) / distance) ** 2 * n)


def images_to_choose(option: Option, allowed: float) -> int | None:
    """How many validation images it takes, about, to be sure that an option loses no more than is allowed.

    Args:
        option: one that loses no more on those that there are.
        allowed: points.

    Returns:
        Two digits of it count; None if no number would do.
    """
    if option.drop >= allowed:
        return None
    return _rounded((CAUTION * option.drop_error / (allowed - option.drop)) ** 2 * len(option.right))


def _rounded(needed: float) -> int:
    """Up to two digits that count."""
    unit = int(10 ** max(0, math.floor(math.log10(max(needed, 1))) - 1))
    return math.ceil(needed / unit) * unit


def meets(option: Option, goal: Goal, dense_ms: float) -> bool:
    """Whether an option meets the goal, with caution."""
    return shortfall(option, goal, dense_ms) <= 0


def shortfall(option: Option, goal: Goal, dense_ms: float) -> float:
    """How far an option is from the goal: the sum of relative excesses; 0 if it meets it."""
    excess = 0.0
    if goal.drop is not None:
        excess += max(0.0, option.cautious_drop - goal.drop) / max(goal.drop, 0.5)
    if goal.bounds_time:
        excess += max(0.0, option.ms / goal.ms_allowed(dense_ms) - 1)
    if goal.max_macs is not None:
        excess += max(0.0, option.macs / goal.max_macs - 1)
    return excess


def best(options: Sequence[Option], goal: Goal, dense_ms: float) -> Option:
    """The best of some options by rules 1, 2 and the first half of 4.

    Args:
        options: one or more.
        goal: what is asked for.
        dense_ms: milliseconds of the network as it is, in its fastest form.
    """
    within = [option for option in options if meets(option, goal, dense_ms)]
    if not within:
        return min(options, key=lambda option: (shortfall(option, goal, dense_ms), option.ms))
    if goal.bounds_cost:
        return min(within, key=lambda option: (option.drop, option.ms))
    return min(within, key=lambda option: (option.ms, option.drop))


@dataclass(frozen=True, eq=False)
class Choice:
    """What to deploy.

    Attributes:
        option: that.
        reached: whether an option meets the goal, on the validation images.
        best: the best option, which `option` is but for rule 3, or where the network is best left as it is.
        reason: which rule has led to it: `best`, `simpler`, `nearest` or `nothing gained`.
        unsure: whether the best option would meet the goal if the validation images were enough to be sure.
    """

    option: Option
    reached: bool
    best: Option
    reason: str
    unsure: bool = False


def choose(options: Sequence[Option], goal: Goal, dense_ms: float) -> Choice:
    """Choose what to deploy; the rules are those of the module.

    Args:
        options: all rows, those of the network as it is among them.
        goal: what is asked for.
        dense_ms: milliseconds of the network as it is, in its fastest form.
    """
    within = sorted((each for each in options if meets(each, goal, dense_ms)), key=_rank)
    if within:
        found = best(options, goal, dense_ms)
        option = next(each for each in within if each is found or _as_good(each, found, goal))
        if goal.bounds_cost or option.name not in DENSE:
            return Choice(option, True, found, "best" if option is found else "simpler")
    dense = min((each for each in options if each.name in DENSE), key=lambda each: each.ms)
    others = [each for each in options if each.name not in DENSE]
    if not others:
        return Choice(dense, False, dense, "nothing gained")
    found = best(others, goal, dense_ms)
    unsure = _meets_without_caution(found, goal, dense_ms)
    gains = found.ms * SAME_TIME <= dense_ms and (goal.drop is None or found.drop <= goal.drop)
    if gains or (goal.max_macs is not None and found.macs < 1 and not goal.bounds_time):
        return Choice(found, False, found, "nearest", unsure)
    return Choice(dense, False, found, "nothing gained", unsure)


def _meets_without_caution(option: Option, goal: Goal, dense_ms: float) -> bool:
    """Whether an option's figures are within the goal as they are."""
    within_drop = goal.drop is None or option.drop <= goal.drop
    within_macs = goal.max_macs is None or option.macs <= goal.max_macs
    return within_drop and within_macs and option.ms <= goal.ms_allowed(dense_ms)


def _rank(option: Option) -> int:
    return list(TITLES).index(option.name)


def _as_good(option: Option, found: Option, goal: Goal) -> bool:
    """Whether a simpler option is as good as the best one, by what makes that the best."""
    if not goal.bounds_cost:
        return option.ms <= SAME_TIME * found.ms
    difference = float(found.right.double().mean() - option.right.double().mean())
    return difference <= paired_error(found.right, option.right)
