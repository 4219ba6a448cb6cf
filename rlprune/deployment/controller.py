"""Holds a budget over a stream of images whose difficulty drifts."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from statistics import median

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.images import Images
from rlprune.deployment.prediction import Prediction
from rlprune.errors import RLPruneError
from rlprune.utils.process import ForkLock


@dataclass(frozen=True)
class ControllerStatus:
    """The mean cost that a controller has held so far.

    Attributes:
        n_images: how many images were counted.
        target: mean cost per image to hold, as a share of the dense network's MACs, or in milliseconds.
        mean: mean cost per image so far, in the unit of the target; NaN before the first image.
        budget: the budget that the policy decides at now, a share of the dense network's MACs.
        at_limit: whether that is the lowest or the highest budget of the policy, so that it can move no further.
    """

    n_images: int
    target: float
    mean: float
    budget: float
    at_limit: bool


class Controller:
    """Predicts with a policy for a range of penalties, and adjusts its budget so that a mean cost per image is held.

    If the images so far cost more than the target, the next `horizon` images get that much less to spend, and the other
    way round. A stream that becomes harder costs more at the same penalty: the budget falls until the target is met
    again. Several threads may call it at once, and are held to the target together.

    Args:
        dynamic: a network whose policy was trained for a range of penalties; its other callers are not counted.
        macs: target, mean share of the dense network's MACs per image.
        milliseconds: target instead of `macs`, mean time per image, in batches as they come. The first call is not
            counted: it may prepare slices.
        horizon: number of images, 1 or more, over which a deviation is made up for; a larger call counts as a whole.
        every: number of images, 1 or more, between two adjustments of the budget; a larger call gets one adjustment.

    Raises:
        RLPruneError: neither or both of the targets are given; a target is not a number above 0, or `macs` is not what
            the policy can spend; `horizon` or `every` is below 1; or the policy was trained for a single penalty.
    """

    def __init__(
        self,
        dynamic: DynamicCNN,
        *,
        macs: float | None = None,
        milliseconds: float | None = None,
        horizon: int = 500,
        every: int = 32,
    ) -> None:
        self.target = _checked_target(macs, milliseconds)
        _check_count("horizon", horizon)
        _check_count("every", every)
        self.dynamic = dynamic
        self.horizon = horizon
        self.every = every
        self._low, self._high = dynamic.source_policy.limits
        if macs is not None and not self._low <= macs <= self._high:
            raise RLPruneError(
                f"macs is {macs}; with this policy images can cost {self._low:.3f} to {self._high:.3f} of the dense "
                "network's MACs on average: choose a target in between"
            )
        self._timed = macs is None
        self._warm = macs is not None
        self._lock = ForkLock()
        self._n_images = 0
        self._cost = 0.0
        self._clear_recent()
        self._rates: deque[float] = deque(maxlen=5)
        self._decide_at((self._low + self._high) / 2 if macs is None else macs)

    def __call__(self, images: Images) -> Prediction:
        """Classify a batch as `DynamicCNN` does."""
        before = time.perf_counter()
        prediction = self._current(images)
        elapsed = 1000 * (time.perf_counter() - before)
        share = float(prediction.macs.double().sum() / self.dynamic.prices.dense.macs)
        with self._lock:
            if self._warm:
                self._count(len(prediction.labels), elapsed if self._timed else share, share)
            self._warm = True
        return prediction

    @property
    def held(self) -> ControllerStatus:
        """The mean cost per image so far, and the budget it is held with."""
        with self._lock:
            mean = self._cost / self._n_images if self._n_images else float("nan")
            at_limit = self.budget in (self._low, self._high)
            return ControllerStatus(self._n_images, self.target, mean, self.budget, at_limit)

    def _count(self, n_images: int, cost: float, share: float) -> None:
        """Add a call's images, their cost in the unit of the target, and their share of the dense MACs."""
        self._n_images += n_images
        self._cost += cost
        self._recent_images += n_images
        self._recent_cost += cost
        self._recent_share += share
        if self._recent_images >= self.every:
            self._adjust()

    def _clear_recent(self) -> None:
        """Begin to count what comes after an adjustment."""
        self._recent_images = 0
        self._recent_cost = 0.0
        self._recent_share = 0.0

    def _adjust(self) -> None:
        """Move the budget so that the horizon makes up for the deviation; recent rates turn time into MACs."""
        self._rates.append(self._recent_cost / self._recent_share)
        excess = self._cost - self._n_images * self.target
        due = self.target - excess / max(self.horizon, self._recent_images)
        self._clear_recent()
        self._decide_at(due / median(self._rates) if self._timed else due)

    def _decide_at(self, budget: float) -> None:
        self.budget = min(max(budget, self._low), self._high)
        self._current = self.dynamic.at(budget=self.budget)


def _checked_target(macs: float | None, milliseconds: float | None) -> float:
    """The one target that is given, if it is a number above 0."""
    if macs is None and milliseconds is None:
        raise RLPruneError("neither macs nor milliseconds is given: give one of them, the mean cost to hold")
    if macs is not None and milliseconds is not None:
        raise RLPruneError(f"macs is {macs} and milliseconds is {milliseconds}: give only one of them")
    name, target = ("milliseconds", milliseconds) if macs is None else ("macs", macs)
    assert target is not None
    if not 0 < target < math.inf:
        raise RLPruneError(f"{name} is {target}; a number above 0 is needed")
    return target


def _check_count(name: str, n_images: int) -> None:
    if n_images < 1:
        raise RLPruneError(f"{name} is {n_images}; 1 or more images are needed")
