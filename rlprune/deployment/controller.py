"""Holding a budget over a stream of images whose difficulty drifts."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from statistics import median

from torch import Tensor

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.prediction import Prediction
from rlprune.errors import RLPruneError


@dataclass(frozen=True)
class Held:
    """What a controller has held so far.

    Attributes:
        n_images: counted.
        target: what an image is to cost on average, as a share of the dense multiply-adds, or in milliseconds.
        mean: what it did cost; NaN before the first.
        budget: at which the policy decides now, a share of the dense multiply-adds.
        at_limit: whether that is the least or the most that the policy can spend, so that nothing is left to move.
    """

    n_images: int
    target: float
    mean: float
    budget: float
    at_limit: bool


class Controller:
    """Predicts with a policy for a range of penalties, and moves its budget so that images cost what they may.

    What all images so far cost too much is to be given back by the next `horizon`, and what they cost too little is
    theirs to spend. A stream that becomes harder costs more at the same penalty: the budget falls until it does not.
    It is for one thread.

    Args:
        dynamic: with such a policy; calls of others to it are not counted.
        macs: mean share of the dense network's multiply-adds that images are to cost.
        milliseconds: instead, mean time per image, in batches of whatever size comes. The first call is not counted:
            it may prepare things.
        horizon: images; where a call has more, those.
        every: images between two moves; a call with more of them is one move.

    Raises:
        RLPruneError: the policy knows one penalty only; none or both of the targets are given; or one of the numbers is
            impossible.
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
        if (macs is None) == (milliseconds is None):
            raise RLPruneError(f"macs is {macs} and milliseconds {milliseconds}: give one of both, what is to be held")
        if horizon < 1 or every < 1 or not 0 < (macs or milliseconds or 0) < float("inf"):
            raise RLPruneError(
                f"macs={macs}, milliseconds={milliseconds}, horizon={horizon}, every={every}: "
                "allowed are numbers above 0"
            )
        self.dynamic, self.target, self.horizon, self.every = dynamic, macs or milliseconds or 0.0, horizon, every
        self._low, self._high = dynamic.source_policy.limits
        if macs is not None and not self._low <= macs <= self._high:
            raise RLPruneError(f"macs is {macs}; with this policy images cost {self._low:.3f} to {self._high:.3f}")
        self._timed, self._warm = macs is None, macs is not None
        self._n, self._cost = 0, 0.0
        self._new, self._new_cost, self._new_share = 0, 0.0, 0.0
        self._rates: deque[float] = deque(maxlen=5)
        self._decide_at((self._low + self._high) / 2 if macs is None else macs)

    def __call__(self, images: Tensor) -> Prediction:
        """Classify a batch, uint8 or float in [0, 1], (B, C, H, W), as `DynamicCNN` does."""
        before = time.perf_counter()
        prediction = self._current(images)
        elapsed = 1000 * (time.perf_counter() - before)
        if self._warm:
            share = float(prediction.macs.double().sum() / self.dynamic.prices.dense.macs)
            self._count(len(images), elapsed if self._timed else share, share)
        self._warm = True
        return prediction

    @property
    def held(self) -> Held:
        """What it has held until now."""
        mean = self._cost / self._n if self._n else float("nan")
        return Held(self._n, self.target, mean, self.budget, self.budget in (self._low, self._high))

    def _count(self, n_images: int, cost: float, share: float) -> None:
        self._n, self._cost = self._n + n_images, self._cost + cost
        self._new, self._new_cost, self._new_share = (
            self._new + n_images,
            self._new_cost + cost,
            self._new_share + share,
        )
        if self._new >= self.every:
            self._move()

    def _move(self) -> None:
        """Decide at the budget that leaves what is due over the horizon; time becomes multiply-adds by recent rates."""
        self._rates.append(self._new_cost / self._new_share)
        too_much = self._cost - self._n * self.target
        due = self.target - too_much / max(self.horizon, self._new)
        self._new, self._new_cost, self._new_share = 0, 0.0, 0.0
        self._decide_at(due / median(self._rates) if self._timed else due)

    def _decide_at(self, budget: float) -> None:
        self.budget = min(max(budget, self._low), self._high)
        self._current = self.dynamic.at(budget=self.budget)
