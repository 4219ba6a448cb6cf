"""A fleet under a load that grows: what a controller of budgets and an autoscaler of replicas do to each other.

Second by second: images come, wait, and are served as fast as the replicas are at the budget of the moment. The
autoscaler is Ray Serve's rule at its default delays: so many replicas as the requests under way need at a target for
each, once that has held for 30 s upwards or 600 s downwards. The controller takes the largest budget at which replicas
are not busier than it likes: less than the autoscaler does, so that it acts first. What finds the queues full is
refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlprune.evaluation.results import RecipeResult
from rlprune.evaluation.timing_results import BenchmarkResult

BATCH = 64
TARGET = 0.7 * BATCH
"""Requests under way that a replica is to have."""
UP_S, DOWN_S, START_S = 30, 600, 15
"""Seconds that a wish for more or fewer replicas must last, and that a replica takes to start."""
MOST = 16
"""Replicas."""
ROOM = 2 * BATCH
"""Images that may wait at a replica."""
CALM = 0.6
"""Share of the time in which the controller lets replicas be busy."""
_QUIET, _BUSY = 1.5, 3.0
"""Images that come, in what one replica serves at the full budget: five minutes, ten minutes, then quiet again."""


@dataclass(frozen=True)
class Way:
    """How a fleet answers to its load.

    Attributes:
        controls: a controller lowers the budget when images wait.
        scales: an autoscaler adds replicas.
        at_full: it counts requests as if they were answered at the full budget.
    """

    controls: bool
    scales: bool
    at_full: bool = False


WAYS = {
    "controller": Way(controls=True, scales=False),
    "autoscaler": Way(controls=False, scales=True),
    "both": Way(controls=True, scales=True),
    "both, at full budget": Way(controls=True, scales=True, at_full=True),
}


@dataclass(frozen=True)
class Speed:
    """Images a second of a replica, and accuracy, by the share of the dense MACs that images cost."""

    dense: float
    overhead: float
    shares: tuple[float, ...]
    accuracies: tuple[float, ...]

    @classmethod
    def of(cls, bench: BenchmarkResult, results: RecipeResult) -> Speed:
        """From the rows of onnxruntime at a batch of 64, and the policies of the results that none dominates."""
        rows = {row.name: row for row in bench.rows if row.batch == BATCH}
        dense, dynamic = rows["dense onnxruntime"], rows["dynamic onnxruntime"]
        share, ratio = dynamic.macs / dense.macs, dynamic.ms / dense.ms
        best: list[tuple[float, float]] = []
        for cost, accuracy in sorted(
            (1 - each.evaluation.macs_cut, each.evaluation.accuracy) for each in results.budgets
        ):
            if not best or accuracy > best[-1][1]:
                best.append((cost, accuracy))
        shares, accuracies = zip(*best, strict=True)
        return cls(dense.images_per_s, (ratio - share) / (1 - share), shares, accuracies)

    def rate(self, share: float) -> float:
        """Images a second: what is not layers takes the same time at any share."""
        return self.dense / (self.overhead + (1 - self.overhead) * share)

    def accuracy(self, share: float) -> float:
        """Of images at a share."""
        return float(np.interp(share, self.shares, self.accuracies))


@dataclass
class Autoscaler:
    """Replicas, and since when more or fewer of them are wished for."""

    replicas: int
    starting: list[int] = field(default_factory=list)
    more_since: float = math.inf
    fewer_since: float = math.inf

    def begin(self, second: int) -> None:
        """Let those that have started serve."""
        self.replicas += sum(ready <= second for ready in self.starting)
        self.starting = [ready for ready in self.starting if ready > second]

    def follow(self, under_way: float, second: int) -> None:
        """Wish for what so many requests need, and do it once the wish has lasted."""
        wanted = min(max(1, math.ceil(under_way / TARGET)), MOST)
        have = self.replicas + len(self.starting)
        self.more_since = min(self.more_since, second) if wanted > have else math.inf
        self.fewer_since = min(self.fewer_since, second) if wanted < have else math.inf
        if second - self.more_since >= UP_S:
            self.starting += [second + START_S] * (wanted - have)
            self.more_since = math.inf
        elif second - self.fewer_since >= DOWN_S and not self.starting:
            self.replicas = wanted
            self.fewer_since = math.inf


def run(way: Way, speed: Speed) -> dict[str, float]:
    """Half an hour of a fleet that begins with what a quiet time needs: shares of images, their accuracy, its hours."""
    full = speed.rate(speed.shares[-1])
    fleet = Autoscaler(math.ceil(_QUIET * BATCH / TARGET))
    waiting = n_images = n_refused = n_cheap = n_right = replica_seconds = 0.0
    for second in range(1800):
        fleet.begin(second)
        coming = full * (_BUSY if 300 <= second < 900 else _QUIET)
        share = _share(speed, (waiting + coming) / fleet.replicas / CALM) if way.controls else speed.shares[-1]
        capacity = fleet.replicas * speed.rate(share)
        served = min(waiting + coming, capacity)
        left = waiting + coming - served
        waiting = min(left, ROOM * fleet.replicas)
        n_refused += left - waiting
        n_images += served
        n_right += served * speed.accuracy(share)
        n_cheap += served * (share < speed.shares[-1])
        replica_seconds += fleet.replicas + len(fleet.starting)
        if way.scales:
            in_service = BATCH * (coming / full if way.at_full else fleet.replicas * served / capacity)
            fleet.follow(waiting + in_service, second)
    return {
        "refused": n_refused / (n_images + n_refused),
        "cheaper": n_cheap / n_images,
        "accuracy": n_right / n_images,
        "replica_hours": replica_seconds / 3600,
    }


def _share(speed: Speed, needed: float) -> float:
    """The largest share at which a replica serves so many images a second, or the smallest that there is."""
    shares = np.linspace(speed.shares[-1], speed.shares[0], 50).tolist()
    return next((share for share in shares if speed.rate(share) >= needed), shares[-1])


def ways(bench: BenchmarkResult, results: RecipeResult, title: str) -> list[dict[str, Any]]:
    """Every way, for one network."""
    speed = Speed.of(bench, results)
    return [{"network": title, "way": name} | run(way, speed) for name, way in WAYS.items()]
