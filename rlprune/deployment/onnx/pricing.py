"""The budget as an input of a file: how it becomes the place in a policy's range of penalties that its decisions use.

The logarithm of the penalty is interpolated between measured budgets, as `rlprune.policies.penalties.penalty_for` does;
a place is that logarithm on another scale, so places are interpolated just so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlprune.deployment.onnx.graph import HEAD
from rlprune.policies.passes import CostBreakdown
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy

_N_PLACES = 1025
"""Places of a range at which the first profile is looked at."""


@dataclass(frozen=True)
class BudgetTable:
    """Budgets and places, float32 (M,) each, ascending by budget; what is decided at where no budget is given.

    Attributes:
        budgets: mean shares of the dense network's MACs.
        places: of the penalties that they are met at, in [0, 1].
        default_budget: the budget that stands for the default, exactly: it has the default's place.
        default_place: of the penalty that the network was at.
    """

    budgets: Tensor
    places: Tensor
    default_budget: float
    default_place: float

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest budget."""
        return float(self.budgets[0]), float(self.budgets[-1])


def budget_table(policy: Policy, penalty: float | None) -> BudgetTable | None:
    """The budgets of a policy, with the penalty that is the default; None if it was trained for a single one."""
    penalties = policy.observer.penalties
    if penalty is None or penalties is None or policy.budgets is None:
        return None
    known, shares = policy.budgets.flip(0).double().T
    default = np.interp(-np.log(penalty), -known.log().numpy(), shares.numpy())
    return BudgetTable(
        shares.float(), _places(penalties, known), float(np.float32(default)), float(_places(penalties, penalty))
    )


def _places(penalties: PenaltyRange, penalty: Tensor | float) -> Tensor:
    return penalties.place(torch.as_tensor(penalty, dtype=torch.float64)).float()


@torch.no_grad()
def first_of_range(policy: Policy, prices: CostBreakdown, table: BudgetTable) -> int | None:
    """The profile that every image runs first at every place of a policy's range, where there is one."""
    observer = policy.observer
    if observer.n_features:
        return None
    spent = (prices.stem.macs / prices.dense.macs)[None]
    nothing, no_passes = torch.zeros(1, observer.n_classes), torch.zeros(1, dtype=torch.int64)
    observed = observer.fixed().observe(torch.zeros(1, 0), nothing, no_passes, spent)
    places = torch.cat([torch.linspace(0, 1, _N_PLACES), table.places, torch.tensor([table.default_place])])
    profiles, _ = policy(torch.cat([observed.repeat(len(places), 1), places[:, None]], 1))
    chosen = profiles.unique().tolist()
    return chosen[0] if len(chosen) == 1 else None


def place_function(table: BudgetTable) -> str:
    """A function of the file: the place of a budget, float (1,), which is clipped to those that are known."""
    steps = (table.places.double().diff() / table.budgets.double().diff()).nan_to_num(0, 0, 0)
    slopes = torch.cat([steps, torch.zeros(1)]).float()
    least, most = table.limits
    return f"""
    {HEAD}
    place (budget) => (place)
    {{
      budgets = Constant <value_floats = {_listed(table.budgets)}> ()
      places = Constant <value_floats = {_listed(table.places)}> ()
      slopes = Constant <value_floats = {_listed(slopes)}> ()
      least = Constant <value_floats = {_listed([least])}> ()
      most = Constant <value_floats = {_listed([most])}> ()
      at_least = Max (budget, least)
      asked = Min (at_least, most)
      reached = GreaterOrEqual (asked, budgets)
      counted = Cast <to = 7> (reached)
      axis = Constant <value_ints = [0]> ()
      n_reached = ReduceSum <keepdims = 1> (counted, axis)
      one = Constant <value_ints = [1]> ()
      first = Constant <value_ints = [0]> ()
      before = Sub (n_reached, one)
      below = Max (before, first)
      budget_below = Gather (budgets, below)
      place_below = Gather (places, below)
      slope = Gather (slopes, below)
      beyond = Sub (asked, budget_below)
      rise = Mul (beyond, slope)
      between = Add (place_below, rise)
      zero_place = Constant <value_floats = [0.0]> ()
      one_place = Constant <value_floats = [1.0]> ()
      positive = Max (between, zero_place)
      known = Min (positive, one_place)
      default_budget = Constant <value_floats = {_listed([table.default_budget])}> ()
      default_place = Constant <value_floats = {_listed([table.default_place])}> ()
      is_default = Equal (budget, default_budget)
      place = Where (is_default, default_place, known)
    }}
    """


def _listed(numbers: Iterable[float] | Tensor) -> str:
    """Numbers as ONNX's text format has them, so exactly that they come back as they were."""
    return str([float(np.float32(number)) for number in numbers])
