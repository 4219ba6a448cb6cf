"""Prices of compute that change at run time: the range a policy knows, and which price meets which budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlprune.errors import RLPruneError


@dataclass(frozen=True)
class PenaltyRange:
    """Penalties between two, spread evenly by logarithm; a place in it is a number in [0, 1].

    Attributes:
        low: the lowest, above 0.
        high: the highest.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise RLPruneError(f"penalties from {self.low} to {self.high}: two numbers above 0, ascending, are needed")

    @classmethod
    def of(cls, ends: Sequence[float]) -> PenaltyRange:
        """The range between two ends.

        Raises:
            RLPruneError: not two numbers above 0, ascending.
        """
        if len(ends) != 2:
            raise RLPruneError(f"penalties {tuple(ends)}: a range has two ends, the lowest and the highest")
        return cls(*ends)

    def at(self, place: Tensor) -> Tensor:
        """Penalties at places in [0, 1], of the same shape."""
        return self.low * (self.high / self.low) ** place

    def place(self, penalty: Tensor) -> Tensor:
        """Places of penalties, clipped to [0, 1], of the same shape."""
        return ((penalty / self.low).log() / math.log(self.high / self.low)).clamp(0, 1)

    def spread(self, n: int) -> Tensor:
        """Penalties of n images, the same ones every time, of which any few are spread evenly; float32 (n,)."""
        golden = (math.sqrt(5) - 1) / 2
        return self.at((torch.arange(n, dtype=torch.float64) * golden + 0.5) % 1).float()

    def check(self, penalty: float) -> float:
        """Return a penalty of this range.

        Raises:
            RLPruneError: it lies outside.
        """
        if not self.low <= penalty <= self.high:
            raise RLPruneError(f"penalty is {penalty}; the policy was trained for {self.low:g} to {self.high:g}")
        return penalty


def limits(known: Tensor) -> tuple[float, float]:
    """The least and the most of the dense multiply-adds that an image can cost on average, of what was measured."""
    return float(known[:, 1].min()), float(known[:, 1].max())


def penalty_for(budget: float, known: Tensor) -> float:
    """The penalty at which images cost so much on average.

    Args:
        budget: mean share of the dense network's multiply-adds.
        known: penalties and the mean shares that were measured at them, (M, 2); what lies between is interpolated.

    Raises:
        RLPruneError: the budget is outside what was measured.
    """
    least, most = limits(known)
    if not least <= budget <= most:
        raise RLPruneError(
            f"budget is {budget}; with this policy images can cost {least:.3f} to {most:.3f} of the dense network's "
            "multiply-adds on average"
        )
    penalties, shares = known.double().numpy()[np.argsort(-known[:, 0].numpy())].T
    shares = np.maximum.accumulate(shares)  # cheaper compute is never used less; what says so is noise
    return float(np.exp(np.interp(budget, shares, np.log(penalties))))
