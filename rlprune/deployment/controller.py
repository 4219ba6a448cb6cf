"""Holds a budget over a stream of images whose difficulty drifts, and lets each of its frames be done in time."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from statistics import median

from rlprune.deployment.deadline import Frame, Pace
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.images import Images
from rlprune.deployment.prediction import Prediction
from rlprune.errors import RLPruneError
from rlprune.utils.process import ForkLock


@dataclass(frozen=True)
class ControllerStatus:
    """What a controller has held so far.

    Attributes:
        n_images: how many images were counted.
        target: mean cost per image to hold, as a share of the dense network's MACs, or in milliseconds; None where
            there is only a deadline.
        mean: mean cost per image so far, in the unit of the target, or in milliseconds where there is only a deadline;
            NaN before the first image.
        budget: the budget that the policy decides at now, a share of the dense network's MACs; None where there is only
            a deadline.
        at_limit: whether that is the lowest or the highest budget of the policy, so that it can move no further; where
            there is only a deadline, whether even the fastest profile was too slow for the last frame.
        missed: share of the images, of those that had a deadline, that were late; NaN where none had.
        limited: share of them for which something cheaper ran than the policy chose; NaN where none had a deadline.
    """

    n_images: int
    target: float | None
    mean: float
    budget: float | None
    at_limit: bool
    missed: float = math.nan
    limited: float = math.nan


class Controller:
    """Predicts image after image, so that a mean cost is held, or each call is done in time, or both.

    A *mean* needs a policy for a range of penalties. If the images so far cost more than the target, the next `horizon`
    images get that much less to spend, and the other way round. A stream that becomes harder costs more at the same
    penalty: the budget falls until the target is met again.

    A *deadline* works with any policy, and for each call alone. The controller knows what each profile takes at the
    moment, from runs of its own and then from all that run. What the policy chooses and will not be done in time is
    replaced by the most expensive profile that will; further passes run only if there is time for them.

    Several threads may call it at once, and are held to the target together.

    Args:
        dynamic: a network; for a mean one whose policy was trained for a range of penalties. Its other callers are not
            counted.
        macs: target, mean share of the dense network's MACs per image.
        milliseconds: target instead of `macs`, mean time per image, in batches as they come. The first call is not
            counted: it may prepare slices.
        deadline: milliseconds in which every call is to be done, from images to predictions.
        quantile: share of the calls that are to be done by their deadline, in (0, 1).
        horizon: number of images, 1 or more, over which a deviation is made up for; a larger call counts as a whole.
        every: number of images, 1 or more, between two adjustments of the budget; a larger call gets one adjustment.

    Raises:
        RLPruneError: none or both of the targets are given, and no deadline; one of them is not a number above 0, or
            `macs` is not what the policy can spend; `quantile` is not between 0 and 1; `horizon` or `every` is below 1;
            or a mean is to be held and the policy was trained for a single penalty.
    """

    def __init__(
        self,
        dynamic: DynamicCNN,
        *,
        macs: float | None = None,
        milliseconds: float | None = None,
        deadline: float | None = None,
        quantile: float = 0.95,
        horizon: int = 500,
        every: int = 32,
    ) -> None:
        self.target = _checked_target(macs, milliseconds, deadline)
        _check_count("horizon", horizon)
        _check_count("every", every)
        if isinstance(quantile, bool) or not isinstance(quantile, int | float) or not 0 < quantile < 1:
            raise RLPruneError(f"quantile is {quantile!r}; a number above 0 and below 1 is needed")
        if not isinstance(dynamic, DynamicCNN):
            raise RLPruneError(f"a controller needs a DynamicCNN, such as rlprune.load gives; this is {dynamic!r}")
        self.dynamic = dynamic
        self.deadline = deadline
        self.quantile = quantile
        self.horizon = horizon
        self.every = every
        self.budget: float | None = None
        self._timed = macs is None
        self._warm = milliseconds is None
        self._lock = ForkLock()
        self._n_images = 0
        self._cost = 0.0
        self._clear_recent()
        self._rates: deque[float] = deque(maxlen=5)
        self._n_due = self._n_late = self._n_limited = 0
        self._hopeless = False
        self._current = dynamic
        if self.target is not None:
            self._begin(macs)
        self._pace = None if deadline is None else Pace.measured(dynamic)

    def _begin(self, macs: float | None) -> None:
        """Decide at the first budget."""
        self._low, self._high = self.dynamic.source_policy.limits
        if macs is not None and not self._low <= macs <= self._high:
            raise RLPruneError(
                f"macs is {macs}; with this policy images can cost {self._low:.3f} to {self._high:.3f} of the dense "
                "network's MACs on average: choose a target in between"
            )
        self._decide_at((self._low + self._high) / 2 if macs is None else macs)

    def __call__(self, images: Images, *, deadline: float | None = None) -> Prediction:
        """Classify a batch as `DynamicCNN` does.

        Args:
            images: as there.
            deadline: of this call, in milliseconds, in place of the controller's. Profiles are timed first, for some
                seconds, where the controller has none.

        Raises:
            DataError: as there.
            NotFiniteError: as there.
            RLPruneError: the deadline is not a number above 0.
        """
        due = self.deadline if deadline is None else _checked("deadline", deadline)
        if due is not None and self._pace is None:
            self._pace = Pace.measured(self.dynamic)
        before = time.perf_counter()
        frame = None if due is None else self._frame(before + due / 1000, images)
        prediction = (self._current if frame is None else self._current.limited(frame))(images)
        elapsed = 1000 * ((time.perf_counter() if frame is None else frame.finish()) - before)
        share = float(prediction.macs.double().sum() / self.dynamic.prices.dense.macs)
        with self._lock:
            if frame is not None and due is not None:
                self._count_frame(len(prediction), frame, late=elapsed > due)
            if self._warm:
                self._count(len(prediction), elapsed if self._timed else share, share)
            self._warm = True
        return prediction

    def _frame(self, ends: float, images: Images) -> Frame:
        """What limits a call that ends at a time of `time.perf_counter`."""
        assert self._pace is not None
        n_images = len(images) if hasattr(images, "__len__") else 1
        return Frame(self._pace, self.dynamic.prices.bodies.macs.tolist(), ends, self.quantile, n_images)

    def _count_frame(self, n_images: int, frame: Frame, *, late: bool) -> None:
        """Count the images of a call that had a deadline."""
        self._n_due += n_images
        self._n_late += n_images * late
        self._n_limited += n_images * frame.limited
        self._hopeless = frame.hopeless

    @property
    def held(self) -> ControllerStatus:
        """The mean cost per image so far, and the budget it is held with."""
        with self._lock:
            mean = self._cost / self._n_images if self._n_images else math.nan
            at_limit = self._hopeless if self.budget is None else self.budget in (self._low, self._high)
            missed, limited = (n / self._n_due if self._n_due else math.nan for n in (self._n_late, self._n_limited))
            return ControllerStatus(self._n_images, self.target, mean, self.budget, at_limit, missed, limited)

    def _count(self, n_images: int, cost: float, share: float) -> None:
        """Add a call's images, their cost in the unit of the target, and their share of the dense MACs."""
        self._n_images += n_images
        self._cost += cost
        self._recent_images += n_images
        self._recent_cost += cost
        self._recent_share += share
        if self.target is not None and self._recent_images >= self.every:
            self._adjust(self.target)

    def _clear_recent(self) -> None:
        """Begin to count what comes after an adjustment."""
        self._recent_images = 0
        self._recent_cost = 0.0
        self._recent_share = 0.0

    def _adjust(self, target: float) -> None:
        """Move the budget so that the horizon makes up for the deviation; recent rates turn time into MACs."""
        self._rates.append(self._recent_cost / self._recent_share)
        excess = self._cost - self._n_images * target
        due = target - excess / max(self.horizon, self._recent_images)
        self._clear_recent()
        self._decide_at(due / median(self._rates) if self._timed else due)

    def _decide_at(self, budget: float) -> None:
        self.budget = min(max(budget, self._low), self._high)
        self._current = self.dynamic.at(budget=self.budget)


def _checked_target(macs: float | None, milliseconds: float | None, deadline: float | None) -> float | None:
    """The one target that is given, if it is a number above 0; None where there is only a deadline that is one."""
    if deadline is not None:
        _checked("deadline", deadline)
    if macs is None and milliseconds is None:
        if deadline is not None:
            return None
        raise RLPruneError(
            "neither macs nor milliseconds is given: give one of them, the mean cost to hold, or a deadline"
        )
    if macs is not None and milliseconds is not None:
        raise RLPruneError(f"macs is {macs} and milliseconds is {milliseconds}: give only one of them")
    return _checked("milliseconds", milliseconds) if macs is None else _checked("macs", macs)


def _checked(name: str, value: float | None) -> float:
    """A value, if it is a number above 0."""
    if value is None or isinstance(value, bool | str) or not hasattr(value, "__float__") or not 0 < value < math.inf:
        raise RLPruneError(f"{name} is {value!r}; a number above 0 is needed")
    return value


def _check_count(name: str, n_images: int) -> None:
    if n_images < 1:
        raise RLPruneError(f"{name} is {n_images}; 1 or more images are needed")
