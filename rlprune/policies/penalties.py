"""Penalties that change at run time: the range a policy was trained for, and which penalty meets which budget."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlprune.errors import RLPruneError


@dataclass(frozen=True)
class PenaltyRange:
    """A range of penalties on a logarithmic scale; a place in it is a number in [0, 1].

    Attributes:
        low: the lowest penalty, above 0.
        high: the highest penalty, above `low` and finite.

    Raises:
        RLPruneError: not two numbers above 0, ascending.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        are_numbers = isinstance(self.low, numbers.Real) and isinstance(self.high, numbers.Real)
        if not are_numbers or not 0 < self.low < self.high < math.inf:
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
        return (self.low * (self.high / self.low) ** place).clamp(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def place(self, penalty: Tensor) -> Tensor:
        """Places of penalties, clipped to [0, 1], of the same shape."""
        return ((penalty / self.low).log() / math.log(self.high / self.low)).clamp(0, 1)

    def spread(self, n: int) -> Tensor:
        """Penalties for n images, always the same ones, spread evenly over the range; float32 (n,).

        Any consecutive few of them are spread evenly too (multiples of the golden ratio, modulo 1).
        """
        golden = (math.sqrt(5) - 1) / 2
        return self.at((torch.arange(n, dtype=torch.float64) * golden + 0.5) % 1).float()

    def check(self, penalty: float) -> float:
        """Return a penalty of this range.

        Raises:
            RLPruneError: it lies outside.
        """
        if not self.low <= penalty <= self.high:
            raise RLPruneError(f"penalty is {penalty}; the policy was trained for {self}")
        return penalty


def monotone_budgets(known: Tensor) -> Tensor:
    """Sort measured budgets by penalty and make them monotone: a lower penalty never buys less.

    Where the measurement says otherwise, which is noise, the share at the next higher penalty is taken.

    Args:
        known: penalties, and the mean share of the dense MACs measured at each, float64 (M, 2).

    Returns:
        float64 (M, 2), ascending by penalty, with shares that do not rise.
    """
    penalties, shares = known[known[:, 0].argsort(descending=True)].T
    return torch.stack([penalties, shares.cummax(0).values], 1).flip(0)


def check_budgets(known: Tensor, penalties: PenaltyRange) -> None:
    """Make sure that a table of budgets is as `monotone_budgets` returns it.

    Args:
        known: float64 (M, 2), with M of 2 or more.
        penalties: the policy's range, which must contain the table's penalties.

    Raises:
        RLPruneError: the table has another shape, is not monotone, or leaves the range.
    """
    fits = known.ndim == 2 and known.shape[1] == 2 and len(known) > 1 and bool(known.isfinite().all())
    if fits:
        prices, shares = known.T
        fits = bool((prices.diff() > 0).all() and (shares.diff() <= 0).all() and shares[-1] > 0)
        fits = fits and penalties.low <= float(prices[0]) and float(prices[-1]) <= penalties.high
    if not fits:
        raise RLPruneError(
            "budgets are ascending penalties of the policy's range, two or more, and shares of the dense network's "
            f"MACs, which do not rise with them; found {known.tolist()}"
        )


def penalty_for(budget: float, known: Tensor) -> float:
    """The penalty at which images cost a budget on average.

    Args:
        budget: mean share of the dense network's MACs.
        known: float64 (M, 2), as `monotone_budgets` returns it; between its rows, the logarithm of the penalty is
            interpolated.

    Raises:
        RLPruneError: the budget is outside the measured shares.
    """
    penalties, shares = known.flip(0).T.numpy()
    least = float(shares[0])
    most = float(shares[-1])
    if not least <= budget <= most:
        raise RLPruneError(
            f"budget is {budget}; with this policy images can cost {least:.3f} to {most:.3f} of the dense network's "
            "MACs on average"
        )
    return float(np.exp(np.interp(budget, shares, np.log(penalties))))
