"""Holding a budget over a stream of images whose difficulty drifts."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from rlprune.errors import RLPruneError
from rlprune.runtime import DynamicCNN, Prediction


@dataclass(frozen=True)
class Held:
    """What a controller has held so far.

    Attributes:
        n_images: seen.
        target: what an image was to cost on average, as a share of the dense multiply-adds, or in milliseconds.
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

    What was spent too much or too little so far is given back over the next `horizon` images (an integral controller).
    A stream of harder images costs more at the same penalty: the budget falls until it does not.

    Args:
        dynamic: with such a policy; calls of others to it are not counted.
        macs: mean share of the dense network's multiply-adds that images are to cost.
        milliseconds: instead, mean time per image, whatever the size of the batches that come.
        horizon: images over which what was over- or underspent is given back.
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
        self.dynamic, self.timed = dynamic, macs is None
        self.target = macs or milliseconds or 0.0
        self.horizon, self.every = horizon, every
        self.low, self.high = dynamic.learnt.limits
        if macs is not None and not self.low <= macs <= self.high:
            raise RLPruneError(f"macs is {macs}; with this policy images cost {self.low:.3f} to {self.high:.3f}")
        self.budget = (self.low + self.high) / 2 if macs is None else macs
        self._current = dynamic.at(budget=self.budget)
        self._seen, self._cost, self._share = 0, 0.0, 0.0
        self._new, self._new_cost, self._new_share = 0, 0.0, 0.0

    def __call__(self, images: Tensor) -> Prediction:
        """Classify a batch, uint8 or float in [0, 1], (B, C, H, W), as `DynamicCNN` does."""
        before = time.perf_counter()
        prediction = self._current(images)
        elapsed = 1000 * (time.perf_counter() - before)
        share = float(prediction.macs.double().sum() / self.dynamic.prices.dense.macs)
        self._new, self._new_share = self._new + len(images), self._new_share + share
        self._new_cost += elapsed if self.timed else share
        if self._new >= self.every:
            self._move()
        return prediction

    @property
    def held(self) -> Held:
        """What it has held until now."""
        n, cost = self._seen + self._new, self._cost + self._new_cost
        at_limit = self.budget in (self.low, self.high)
        return Held(n, self.target, cost / n if n else float("nan"), self.budget, at_limit)

    def _move(self) -> None:
        """Give back what the newest images cost too much, in shares of multiply-adds; time is converted by the mean."""
        self._seen, self._cost, self._share = (
            self._seen + self._new,
            self._cost + self._new_cost,
            self._share + self._new_share,
        )
        too_much = (self._new_cost - self._new * self.target) * self._share / self._cost
        self._new, self._new_cost, self._new_share = 0, 0.0, 0.0
        self.budget = min(max(self.budget - too_much / self.horizon, self.low), self.high)
        self._current = self.dynamic.at(budget=self.budget)
