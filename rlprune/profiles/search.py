"""Looking for good static profiles: what a codebook is made of, and what a learnt policy has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.levels import MAX_PROFILES
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.graph.folding import optimize_for_inference
from rlprune.metrics import accuracy
from rlprune.profiles.codebook import random_profiles, sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency
from rlprune.utils.progress import progress_bar

_PATIENCE = 20
"""So many generations without any new profile end a search: there may be no more."""


@dataclass(frozen=True, eq=False)
class Search:
    """Profiles that were tried.

    Attributes:
        profiles: int64 (M, G).
        accuracy: on the images searched with, float64 (M,).
        price: of each, over the dense network's, float64 (M,): multiply-adds, or milliseconds.
    """

    profiles: Tensor
    accuracy: Tensor
    price: Tensor

    def frontier(self) -> Tensor:
        """Indices of the profiles on the upper convex hull of accuracy over cost, cheapest first, int64.

        Between two of them lies what a random mixture of both achieves, so nothing static is better than this line.
        """
        hull: list[int] = []
        for index in sorted(range(len(self.price)), key=lambda i: (float(self.price[i]), -float(self.accuracy[i]))):
            if hull and float(self.accuracy[index]) <= float(self.accuracy[hull[-1]]):
                continue
            while len(hull) > 1 and self._slope(hull[-2], hull[-1]) <= self._slope(hull[-1], index):
                hull.pop()
            hull.append(index)
        return torch.tensor(hull)

    def _slope(self, left: int, right: int) -> float:
        rise, run = float(self.accuracy[right] - self.accuracy[left]), float(self.price[right] - self.price[left])
        return rise / run if run else float("inf")


@torch.no_grad()
def profile_accuracies(elastic: ElasticModule, data: ImageSet, profiles: Tensor, label: str = "search") -> Tensor:
    """Accuracy of each static profile (M, G) on an image set, by its slice, float64 (M,)."""
    bodies = progress_bar(profiles, desc=label, unit="profile")
    device = elastic.widths.device
    shares = [accuracy(optimize_for_inference(elastic.slice(profile)), data, device=device) for profile in bodies]
    return torch.tensor(shares, dtype=torch.float64)


def search_profiles(
    elastic: ElasticModule,
    data: ImageSet,
    n_candidates: int = 64,
    seed: int = 0,
    also: Tensor | None = None,
    latency: Latency | None = None,
) -> Search:
    """Search static profiles by evolution: uniform and random ones first, then variations of the best at every cost.

    Args:
        elastic: the adapted network.
        data: images to judge by; never the test set.
        n_candidates: profiles to try.
        seed: of the random ones.
        also: int64 (M, G), profiles to try beside them, such as a codebook.
        latency: what is to be saved is this time, not multiply-adds.
    """
    if n_candidates < elastic.n_levels:
        raise RLPruneError(
            f"n_candidates is {n_candidates}; at least {elastic.n_levels}, the uniform profiles, are needed"
        )
    cost, generator = Cost(elastic), torch.Generator().manual_seed(seed)

    def judge(profiles: Tensor) -> Search:
        macs = cost.of(profiles).macs.double() / cost.dense.macs
        price = macs if latency is None else latency.predict_ms(cost, profiles) / latency.dense
        return Search(profiles, profile_accuracies(elastic, data, profiles), price)

    uniform = [elastic.uniform(level) for level in range(elastic.n_levels)]
    first = torch.stack(uniform + random_profiles(elastic, n_candidates // 3, generator))[:n_candidates]
    if also is not None:
        first, n_candidates = torch.cat([also, first]), n_candidates + len(also)
    tried = judge(first.unique(dim=0))
    n_vain = 0
    while len(tried.profiles) < n_candidates and n_vain < _PATIENCE:
        parents = tried.profiles[tried.frontier()]
        n_left = n_candidates - len(tried.profiles)
        children = [_vary(elastic, parents, generator) for _ in range(max(4, n_left // 3))]
        fresh = _unseen(children, tried) or _unseen(random_profiles(elastic, 4, generator), tried)
        if not fresh:
            n_vain += 1
            continue
        more = judge(torch.stack(fresh[:n_left]))
        tried = Search(*(torch.cat(pair) for pair in zip(tried.__dict__.values(), more.__dict__.values(), strict=True)))
    return tried


def choose_codebook(elastic: ElasticModule, found: Search, n_profiles: int = 6) -> Tensor:
    """Some of the best profiles of a search, spread over cost in even ratios, the whole network among them.

    Returns:
        int64 (K, G), cheapest first, K <= n_profiles.

    Raises:
        RLPruneError: n_profiles is not from 1 to 16.
    """
    if not 1 <= n_profiles <= MAX_PROFILES:
        raise RLPruneError(f"n_profiles is {n_profiles}; from 1 to {MAX_PROFILES} is allowed")
    frontier = found.frontier()
    price = found.price[frontier]
    wanted = torch.logspace(float(price[0].log10()), 0, n_profiles, dtype=torch.float64)
    nearest = (price.log()[None] - wanted.log()[:, None]).abs().argmin(1)
    chosen = found.profiles[frontier[nearest[:-1]]]
    return sorted_codebook(torch.cat([chosen, elastic.full[None]]), Cost(elastic))


def best_within(elastic: ElasticModule, found: Search, budgets: Sequence[float]) -> Tensor:
    """The most accurate profile of a search for each budget.

    Args:
        elastic: the network searched.
        found: its profiles.
        budgets: shares of the dense network's price that a profile may cost; 1 is the whole network, whatever the
            search found, as further training favours it most.

    Returns:
        int64 (K, G), cheapest first, K <= len(budgets): one profile may be the best for two budgets.

    Raises:
        RLPruneError: no profile is as cheap as a budget.
    """
    chosen = []
    for budget in budgets:
        if budget >= 1:
            chosen.append(elastic.full)
            continue
        within = found.price <= budget
        if not within.any():
            cheapest = float(found.price.min())
            raise RLPruneError(f"budget {budget:g} is below the cheapest profile found, which costs {cheapest:.3f}")
        chosen.append(found.profiles[found.accuracy.where(within, -1.0).argmax()])
    return sorted_codebook(torch.stack(chosen), Cost(elastic))


def _unseen(profiles: list[Tensor], tried: Search) -> list[Tensor]:
    """Those that were not tried yet, each once."""
    return [one for one in torch.stack(profiles).unique(dim=0) if not (tried.profiles == one).all(1).any()]


def _vary(elastic: ElasticModule, parents: Tensor, generator: torch.Generator) -> Tensor:
    """A child of two parents, with one or two of its levels moved by one or two."""
    n_groups = elastic.n_groups
    mother, father = parents[torch.randint(len(parents), (2,), generator=generator)]
    child = torch.where(torch.rand(n_groups, generator=generator) < 0.5, mother, father)
    moves = torch.randint(-2, 3, (n_groups,), generator=generator)
    moved = torch.rand(n_groups, generator=generator) < 1.5 / n_groups
    return elastic.keep_levels.clamp(child + moves * moved)
