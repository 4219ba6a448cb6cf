"""The budget as an input of a file: how it becomes the place in a policy's range of penalties that its decisions use.

The logarithm of the penalty is interpolated between measured budgets, as `rlprune.policies.penalties.penalty_for` does;
a place is that logarithm on another scale, so places are interpolated just so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlprune.deployment.onnx.graph import DOMAIN, HEAD, GraphSpec, all_shared
from rlprune.policies.folded import FirstProfile
from rlprune.policies.passes import CostBreakdown
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy

_N_PLACES = 1025
"""Places of a range at which the first profile is looked at."""

_MOST_FIRSTS = 4
"""Of so many profiles a file may hold the weights of a first pass; a session holds them twice."""


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
def firsts_of_range(policy: Policy, prices: CostBreakdown, table: BudgetTable) -> tuple[int, ...]:
    """The profiles that come first somewhere in a policy's range; none if images may begin differently, or too many."""
    if policy.observer.n_features:
        return ()
    first = FirstProfile(policy, prices.spent_before)
    places = torch.cat([torch.linspace(0, 1, _N_PLACES), table.places, torch.tensor([table.default_place])])
    firsts = sorted({int(first(place[None])) for place in places})
    return tuple(firsts) if len(firsts) <= _MOST_FIRSTS else ()


def begin_function(spec: GraphSpec) -> str:
    """A function of the file: features of images, which profile they all run first at a place, and their logits.

    Stem and body stand in one branch, as onnxruntime keeps its own memory layout within a branch only.
    """
    inputs = ", ".join(("images", "place", *all_shared(spec)))
    return f"""
    {HEAD}
    begin ({inputs}) => (features, first, logits)
    {{
      first = {DOMAIN}.first (place)
      {_begin_with(spec.firsts, spec)}
      features = Identity (features_{spec.firsts[0]})
      logits = Identity (logits_{spec.firsts[0]})
    }}
    """


def _begin_with(firsts: Sequence[int], spec: GraphSpec) -> str:
    """The part of `begin` that runs the first of some profiles, k, if that is chosen, else one of the others.

    It gives `features_k` and `logits_k`.
    """
    k, *others = firsts
    if not others:
        return _start_and_run(k, f"{k}", spec)

    def results(end: str) -> str:
        return f"{spec.feature_type}[n, a, b, c] features_{end}, float[n, {spec.n_classes}] logits_{end}"

    return f"""
      index_{k} = Constant <value_ints = [{k}]> ()
      is_{k} = Equal (first, index_{k})
      features_{k}, logits_{k} = If (is_{k}) <
        then_branch = begin_{k} () => ({results(f"by_{k}")}) {{ {_start_and_run(k, f"by_{k}", spec)} }},
        else_branch = begin_{others[0]} () => ({results(f"{others[0]}")}) {{ {_begin_with(others, spec)} }}
      >"""


def _start_and_run(k: int, end: str, spec: GraphSpec) -> str:
    """Features and logits of all images under a profile, whose names end like this."""
    return f"""
      features_{end} = {DOMAIN}.start (images)
      logits_{end} = {DOMAIN}.profile_{k} ({", ".join((f"features_{end}", *spec.shared[k]))})"""


def place_function(table: BudgetTable) -> str:
    """A function of the file: the place of a budget, float (1,), which is clipped to those that are known.

    From the lowest budget on, each stretch between two known ones adds its slope times how much of it lies below. Where
    one budget has two places, the stretch between them is as narrow as numbers allow.
    """
    starts, ends = table.budgets[:-1], table.budgets[1:]
    starts = torch.where(starts == ends, torch.nextafter(starts, torch.tensor(0.0)), starts)
    widths = ends - starts
    slopes = table.places.double().diff() / widths
    return f"""
    {HEAD}
    place (budget) => (place)
    {{
      starts = Constant <value_floats = {_listed(starts)}> ()
      widths = Constant <value_floats = {_listed(widths)}> ()
      slopes = Constant <value_floats = {_listed(slopes)}> ()
      least_place = Constant <value_floats = {_listed(table.places[:1])}> ()
      zero = Constant <value_floats = [0.0]> ()
      beyond = Sub (budget, starts)
      some = Max (beyond, zero)
      within = Min (some, widths)
      rises = Mul (within, slopes)
      rise = ReduceSum <keepdims = 1> (rises)
      between = Add (least_place, rise)
      default_budget = Constant <value_floats = {_listed([table.default_budget])}> ()
      default_place = Constant <value_floats = {_listed([table.default_place])}> ()
      is_default = Equal (budget, default_budget)
      place = Where (is_default, default_place, between)
    }}
    """


def _listed(numbers: Iterable[float] | Tensor) -> str:
    """Numbers as ONNX's text format has them, so exactly that they come back as they were."""
    return str([float(np.float32(number)) for number in numbers])
