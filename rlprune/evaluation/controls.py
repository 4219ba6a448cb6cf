"""What a dynamic network has to beat at equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.deployment.prediction import Prediction
from rlprune.elastic.module import ElasticModule
from rlprune.policies.observations import Observer
from rlprune.profiles.codebook import random_profiles
from rlprune.profiles.cost import Cost
from rlprune.profiles.search import search_profiles
from rlprune.training.parallel.measuring import shared_accuracies

_N_DRAWS = 2048
"""Random profiles drawn."""
_N_COSTS = 8
"""Costs, in even ratios, at which some of them are measured."""
_N_RANDOM = 2
"""How many at each cost."""

Point = tuple[float, float]
"""A network as its share of the dense network's MACs and its accuracy."""
Points = list[Point]


@dataclass(frozen=True, eq=False)
class Controls:
    """Static networks of one or several elastic ones, measured once: what every policy has to beat.

    Attributes:
        uniform: of each, its uniform profiles on the test images.
        random: of each, the means of a few random profiles at several costs on the test images.
        static: of each, the best profiles of a search that tries the codebook's too, on the test images.
        n_candidates: profiles that each search tried.
        seed: of the searches, and of random profiles.
    """

    uniform: tuple[Points, ...]
    random: tuple[Points, ...]
    static: tuple[Points, ...]
    n_candidates: int
    seed: int

    @classmethod
    def measure(
        cls,
        networks: Sequence[ElasticModule],
        codebook: Tensor,
        test: ImageSet,
        selection_set: ImageSet,
        n_candidates: int = 64,
        seed: int = 0,
    ) -> Controls:
        """Search static profiles on `selection_set`, and measure them on `test`.

        A network that was trained for a codebook alone is good at nothing else, so its controls are weak; give the one
        that it was before too, and the better of both counts. Several processes share the images, as in
        `rlprune.evaluation.dynamic.evaluate`.
        """
        uniform: list[Points] = []
        random: list[Points] = []
        static: list[Points] = []
        for elastic in networks:
            cost = Cost(elastic)
            measure = partial(shared_accuracies, elastic, selection_set)
            found = search_profiles(elastic, selection_set, n_candidates, seed, codebook, measure=measure)
            levels = [elastic.uniform(level) for level in range(elastic.narrowest, elastic.n_levels)]
            uniform.append(_points(elastic, test, torch.stack(levels), cost))
            random.append(_random_points(elastic, test, cost, seed))
            static.append(_points(elastic, test, found.profiles[found.frontier()], cost))
        return cls(tuple(uniform), tuple(random), tuple(static), n_candidates, seed)


def shuffled_accuracy(predicted: Prediction, logits: Tensor, labels: Tensor, observer: Observer) -> float:
    """Expected accuracy when decisions go to random images: each decision's on all images, as often as it was made.

    Args:
        predicted: the decisions.
        logits: of every profile on all images, float32 (K, N, classes).
        labels: of all images, int64 (N,).
        observer: combines the logits of several passes.
    """
    decisions, counts = predicted.profiles.unique(dim=0, return_counts=True)
    n_right = torch.tensor(
        [int((observer.beliefs(logits[passes[passes >= 0]])[-1].argmax(1) == labels).sum()) for passes in decisions]
    )
    return int(n_right @ counts) / (len(labels) * len(predicted.profiles))


def _points(elastic: ElasticModule, data: ImageSet, profiles: Tensor, cost: Cost) -> Points:
    shares = (cost.of(profiles).macs / cost.dense.macs).tolist()
    return list(zip(shares, shared_accuracies(elastic, data, profiles, "controls").tolist(), strict=True))


def _at(share: float, points: Sequence[Point]) -> tuple[float, float]:
    """Cost and accuracy at a cost, two neighbours mixed; outside of what the points span, those of the nearest one."""
    shares, accuracies = zip(*sorted(points), strict=True)
    return float(np.clip(share, shares[0], shares[-1])), float(np.interp(share, shares, accuracies))


def best_at(share: float, of_networks: Sequence[Sequence[Point]]) -> tuple[float, float]:
    """Cost and accuracy at a share of the dense MACs; of several networks, those of the more accurate one."""
    return max((_at(share, points) for points in of_networks), key=lambda point: point[1])


def hull(of_networks: Sequence[Points]) -> Points:
    """One network's points; of several, those that nothing cheaper beats, cheapest first."""
    if len(of_networks) == 1:
        return of_networks[0]
    best: Points = []
    for point in sorted(point for points in of_networks for point in points):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def _random_points(elastic: ElasticModule, data: ImageSet, cost: Cost, seed: int) -> Points:
    """Mean cost and accuracy of the random profiles nearest to each of several costs, in even ratios."""
    profiles = torch.stack(random_profiles(elastic, _N_DRAWS, torch.Generator().manual_seed(seed))).unique(dim=0)
    shares = (cost.of(profiles).macs / cost.dense.macs).double()
    low, high = (float(end.log10()) for end in (shares.min(), shares.max()))
    wanted = torch.logspace(low, high, _N_COSTS, dtype=torch.float64)
    nearest = (shares - wanted[:, None]).abs().argsort(dim=1, stable=True)[:, :_N_RANDOM]
    points = np.array(_points(elastic, data, profiles[nearest.flatten()], cost))
    return [(float(share), float(right)) for share, right in points.reshape(_N_COSTS, -1, 2).mean(1)]
