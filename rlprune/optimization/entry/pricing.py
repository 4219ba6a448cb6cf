"""What slices cost, and which of them are used: where a goal is a time, at what they take in what they will run on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlprune.elastic.cnn import ElasticCNN
from rlprune.evaluation.timing.backends import LatencySettings
from rlprune.optimization.goal import Goal
from rlprune.optimization.plan import Plan
from rlprune.profiles.codebook import resolutions, sorted_codebook, uniform_profiles
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency
from rlprune.profiles.search import Search, best_within

_KEPT = 0.9
"""Share of the whole network's accuracy that the cheapest profile in use should have before it is trained for."""
_CHEAPEST = 0.35
"""Share of the whole network's price that the cheapest profile in use may cost."""
_BELOW_TARGET = 0.6
"""Share of the price that a target allows which the cheapest profile in use may cost."""
_NO_FASTER = 0.95
"""Share of the whole network's time that the fastest profile takes where times are of no use to choose profiles by."""
_SHARE = 0.03
"""Of the time limit that slices may take to be made ready, and again to be timed."""
_FEWEST = 10
_MOST_SECONDS = 20.0
_READY = {"pytorch": 0.2, "onnxruntime": 1.5}
"""Seconds in which a slice is ready to be timed, about."""


def pricing_seconds(goal: Goal, elastic: ElasticCNN, minutes: float) -> float:
    """Seconds that `times_of` takes, about; 0 where the goal is no time.

    Args:
        goal: what is asked for.
        elastic: the network.
        minutes: time limit.
    """
    return _READY[goal.backend] * _n_timed(goal, elastic, minutes) + _seconds(minutes) if goal.bounds_time else 0.0


def times_of(
    elastic: ElasticCNN, goal: Goal, path: Path, minutes: float, seed: int, late: Callable[[], bool] | None = None
) -> Latency:
    """The latency table in a file, or one that is measured and written there: by backend and batch of the goal.

    Args:
        elastic: the network, on the processor.
        goal: what is asked for.
        path: of the file.
        minutes: time limit.
        seed: of the slices that are timed.
        late: says when it has to end; then fewer slices are timed.
    """
    settings = LatencySettings(batch=goal.batch, backend=goal.backend)
    n_profiles = _n_timed(goal, elastic, minutes)
    return settings.table(path, elastic, seed, n_profiles=n_profiles, seconds=_seconds(minutes), late=late)


def profiles_in_use(elastic: ElasticCNN, found: Search, n_profiles: int, allowed: float) -> Tensor:
    """Profiles from the cheapest that promises enough, in even ratios of their price up to the whole network.

    Args:
        elastic: the network searched.
        found: its profiles; at the price of multiply-adds or times.
        n_profiles: how many at most.
        allowed: share of the whole network's price that the goal allows; 1 if it says none.

    Returns:
        int64 (K, G), cheapest first.
    """
    by_macs = found.by_macs(elastic)
    whole = float(found.accuracy[by_macs.price.argmax()])
    if float(found.price.min()) > _NO_FASTER:
        found = by_macs
    cheapest = float(found.price.min())
    promising = found.price[found.accuracy >= _KEPT * whole]
    low = max(min(_CHEAPEST, float(promising.min()), _BELOW_TARGET * allowed), cheapest)
    budgets = torch.logspace(0, 1, n_profiles, base=1 / low, dtype=torch.float64) * low
    return best_within(elastic, found, [max(float(each), cheapest) for each in budgets[:-1]] + [1.0])


def untrained_in_use(elastic: ElasticCNN, n_profiles: int, allowed: float) -> Tensor:
    """Profiles, evenly, where slices of any width were not trained: those that need little training.

    The whole network at several resolutions, if it has them and the lowest is within the goal; else the same share of
    everything.

    Args:
        elastic: the network.
        n_profiles: how many at most.
        allowed: as for `profiles_in_use`.

    Returns:
        int64 (K, G), cheapest first.
    """
    cost, profiles = Cost(elastic), resolutions(elastic)
    if not elastic.resolution or cost.of(profiles[0]).macs > allowed * cost.dense.macs:
        profiles = uniform_profiles(elastic)[elastic.narrowest :]
    levels = torch.linspace(0, len(profiles) - 1 - 1e-6, n_profiles).round().long()
    return sorted_codebook(profiles[levels], cost)


def draws(plan: Plan, n_profiles: int) -> dict[str, Any]:
    """Which profiles of a codebook a step trains, as settings of the training.

    Slices that share their weights: both ends in every step, so that only others are drawn, where there are any. Slices
    with weights of their own: one alone, each twice as often as the next, and the whole network never.

    Args:
        plan: what is done.
        n_profiles: of the codebook, cheapest first, the last one the whole network.
    """
    if plan.separate:
        shares = (*(2.0**-index for index in range(n_profiles - 1)), 0.0)
        return {"n_random": 1, "sandwich": False, "separate": True, "shares": shares}
    shares = (1.0,) * n_profiles if n_profiles < 3 else (0.0, *(1.0,) * (n_profiles - 2), 0.0)
    return {"n_random": plan.n_random, "shares": shares}


def _n_timed(goal: Goal, elastic: ElasticCNN, minutes: float) -> int:
    """Slices to time: twice as many as the table has entries, where there is time."""
    enough = 2 * elastic.n_groups * (elastic.n_levels - 1)
    return max(_FEWEST, min(enough, int(_SHARE * 60 * minutes / _READY[goal.backend])))


def _seconds(minutes: float) -> float:
    return min(_MOST_SECONDS, _SHARE * 60 * minutes)
