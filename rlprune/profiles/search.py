"""Searches for good static profiles: what codebooks are made of, and what a learnt policy has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.levels import MAX_PROFILES
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.graph.folding import optimize_for_inference
from rlprune.metrics import accuracy
from rlprune.profiles.codebook import random_profiles, simple_profiles, sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency
from rlprune.utils.finite import check_numbers, check_whole
from rlprune.utils.progress import progress_bar

_PATIENCE = 20
"""A search ends after this many generations without a new profile: there may be no more."""


@dataclass(frozen=True, eq=False)
class Search:
    """The profiles that a search tried.

    Attributes:
        profiles: int64 (M, G).
        accuracy: of each on the images of the search, float64 in [0, 1], (M,).
        price: MACs or milliseconds of each over the dense network's, float64 (M,).
        guessed: accuracy up to which a profile may be one that guesses, in [0, 1].
    """

    profiles: Tensor
    accuracy: Tensor
    price: Tensor
    guessed: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Everything, as `Search.from_json` reads it."""
        tensors = {name: getattr(self, name).tolist() for name in ("profiles", "accuracy", "price")}
        return tensors | {"guessed": self.guessed}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Search:
        """What `to_json` gave."""
        accuracy, price = (torch.tensor(stored[name], dtype=torch.float64) for name in ("accuracy", "price"))
        return cls(torch.tensor(stored["profiles"]), accuracy, price, stored.get("guessed", 0.0))  # of earlier versions

    def by_macs(self, elastic: ElasticModule) -> Search:
        """The same at the price of MACs, whatever the search went by."""
        cost = Cost(elastic)
        return replace(self, price=cost.of(self.profiles).macs.double() / cost.dense.macs)

    def frontier(self) -> Tensor:
        """Indices of the profiles on the upper convex hull of accuracy over price, cheapest first, int64 (F,).

        The line between two of them is what a random mixture of both achieves, so nothing static tried is above it.
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
        rise = float(self.accuracy[right] - self.accuracy[left])
        run = float(self.price[right] - self.price[left])
        return rise / run if run else float("inf")


@torch.no_grad()
def profile_accuracies(
    elastic: ElasticModule, data: ImageSet, profiles: Tensor, label: str = "search", *, hidden: bool = False
) -> Tensor:
    """Measure the accuracy of static profiles by their slices.

    Args:
        elastic: the network.
        data: the images.
        profiles: int64 (M, G).
        label: text of the progress bar.
        hidden: show none.

    Returns:
        Accuracy of each, float64 in [0, 1], (M,).
    """
    bodies = progress_bar(profiles, desc=label, unit="profile", hidden=hidden)
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
    measure: Callable[[Tensor], Tensor] | None = None,
    late: Callable[[], bool] | None = None,
) -> Search:
    """Search static profiles by evolution: simple and random ones first, then variations of the best at every cost.

    Simple ones are uniform; and, where the resolution is chosen, the whole network at each.

    Args:
        elastic: the adapted network.
        data: images that profiles are measured on; never the test set.
        n_candidates: how many profiles to try, at least the simple ones.
        seed: of the random profiles.
        also: further profiles to try, such as a codebook, int64 (M, G).
        latency: measured times, which then are the price instead of MACs.
        measure: measures profiles, int64 (M, G), in place of `profile_accuracies`, such as by several processes.
        late: says when it has to end, and is asked before every generation, and without `measure` before every profile;
            the simple profiles are tried in any case.

    Raises:
        RLPruneError: `n_candidates` is below the number of simple profiles.
    """
    check_candidates(elastic, n_candidates)
    check_whole(seed=seed, least=0, most=2**32 - 1)
    cost = Cost(elastic)
    generator = torch.Generator().manual_seed(seed)

    simple = simple_profiles(elastic)

    def due(profiles: Tensor) -> Iterator[Tensor]:
        for profile in profiles:
            if late is None or not late() or bool((simple == profile).all(1).any()):
                yield profile

    def judge(profiles: Tensor) -> Search:
        if measure is None and late is not None:
            parts = [(profile, profile_accuracies(elastic, data, profile[None])) for profile in due(profiles)]
            profiles, found = torch.stack([each for each, _ in parts]), torch.cat([share for _, share in parts])
        else:
            profiles = torch.stack(list(due(profiles)))
            found = profile_accuracies(elastic, data, profiles) if measure is None else measure(profiles)
        macs = cost.of(profiles).macs.double() / cost.dense.macs
        price = macs if latency is None else latency.predict_ms(cost, profiles) / latency.dense
        return Search(profiles, found, price, guessed)

    guessed = _guessed(data)
    first = torch.stack([*simple, *random_profiles(elastic, n_candidates // 3, generator)])[:n_candidates]
    if also is not None:
        first = torch.cat([also, first])
        n_candidates += len(also)
    tried = judge(first.unique(dim=0))
    n_without_new = 0
    while len(tried.profiles) < n_candidates and n_without_new < _PATIENCE and not (late is not None and late()):
        n_left = n_candidates - len(tried.profiles)
        new = _next_generation(elastic, tried, n_left, generator)
        if new:
            tried = _joined(tried, judge(torch.stack(new)))
        else:
            n_without_new += 1
    return tried


def check_candidates(elastic: ElasticModule, n_candidates: int) -> None:
    """Make sure that a search may try so many profiles.

    Raises:
        RLPruneError: `n_candidates` is below the number of simple profiles.
    """
    check_whole(n_candidates=n_candidates, most=100_000)
    least = len(simple_profiles(elastic))
    if n_candidates < least:
        which = "the uniform profiles and the resolutions" if elastic.resolution else "the uniform profiles"
        raise RLPruneError(f"n_candidates is {n_candidates}; at least {least}, {which}, are needed")


def check_budget(elastic: ElasticModule, budget: float) -> None:
    """Make sure that a search by MACs can find a profile for a budget, before it begins.

    Raises:
        RLPruneError: the cheapest profile that there is costs more.
    """
    cost = Cost(elastic)
    cheapest = float(cost.of(elastic.uniform(0)).macs.double() / cost.dense.macs)
    if budget < cheapest:
        raise RLPruneError(
            f"budget {budget:g} is below the cheapest profile found, which costs {cheapest:.3f}; give larger ones"
        )


def _next_generation(elastic: ElasticModule, tried: Search, n_left: int, generator: torch.Generator) -> list[Tensor]:
    """At most n_left profiles that were not tried yet: variations of the frontier, or random ones if all were."""
    parents = tried.profiles[tried.frontier()]
    children = [_vary(elastic, parents, generator) for _ in range(max(4, n_left // 3))]
    new = _untried(children, tried) or _untried(random_profiles(elastic, 4, generator), tried)
    return new[:n_left]


def _joined(first: Search, second: Search) -> Search:
    return Search(
        torch.cat([first.profiles, second.profiles]),
        torch.cat([first.accuracy, second.accuracy]),
        torch.cat([first.price, second.price]),
        first.guessed,
    )


def _guessed(data: ImageSet) -> float:
    """The accuracy that an answer which is always the same hardly exceeds by chance: three standard errors above."""
    share = float(data.labels.bincount().max()) / len(data)
    return share + 3 * math.sqrt(share * (1 - share) / len(data))


def choose_codebook(elastic: ElasticModule, found: Search, n_profiles: int = 6) -> Tensor:
    """Choose profiles from the frontier of a search, spaced evenly by the logarithm of the price, full keep included.

    Args:
        elastic: the network searched.
        found: its profiles.
        n_profiles: how many at most, 1 to 16.

    Returns:
        int64 (K, G), cheapest first, K <= n_profiles.

    Raises:
        RLPruneError: n_profiles is not from 1 to 16.
    """
    check_whole(n_profiles=n_profiles)
    if not 1 <= n_profiles <= MAX_PROFILES:
        raise RLPruneError(f"n_profiles is {n_profiles}; from 1 to {MAX_PROFILES} is allowed")
    frontier = found.frontier()
    price = found.price[frontier]
    targets = torch.logspace(float(price[0].log10()), 0, n_profiles, dtype=torch.float64)
    nearest = (price.log()[None] - targets.log()[:, None]).abs().argmin(1)
    chosen = found.profiles[frontier[nearest[:-1]]]
    return sorted_codebook(torch.cat([chosen, elastic.full[None]]), Cost(elastic))


def best_within(elastic: ElasticModule, found: Search, budgets: Sequence[float]) -> Tensor:
    """The most accurate profile of a search for each budget.

    Where none is better than guessing, as slices of networks that were not trained for it, the dearest is taken: the
    network that further training favours most.

    Args:
        elastic: the network searched.
        found: its profiles.
        budgets: shares of the dense network's price that a profile may cost; for 1 or more the whole network is
            chosen, whatever the search found, since further training favours it most.

    Returns:
        int64 (K, G), cheapest first, K <= len(budgets): one profile may be the best for two budgets.

    Raises:
        RLPruneError: no profile is as cheap as a budget.
    """
    chosen = []
    for budget in budgets:
        check_numbers(budget=budget)
        if budget >= 1:
            chosen.append(elastic.full)
            continue
        within = found.price <= budget
        if not within.any():
            cheapest = float(found.price.min())
            raise RLPruneError(
                f"budget {budget:g} is below the cheapest profile found, which costs {cheapest:.3f}; give larger ones"
            )
        accuracy = found.accuracy.where(within, -1.0)
        best = accuracy if accuracy.max() > found.guessed else found.price.where(within, -1.0)
        chosen.append(found.profiles[best.argmax()])
    return sorted_codebook(torch.stack(chosen), Cost(elastic))


def _untried(profiles: list[Tensor], tried: Search) -> list[Tensor]:
    """The profiles that were not tried yet, without repetition."""
    return [one for one in torch.stack(profiles).unique(dim=0) if not (tried.profiles == one).all(1).any()]


def _vary(elastic: ElasticModule, parents: Tensor, generator: torch.Generator) -> Tensor:
    """A child of two parents, with one or two of its levels moved by one or two."""
    n_groups = elastic.n_groups
    mother, father = parents[torch.randint(len(parents), (2,), generator=generator)]
    child = torch.where(torch.rand(n_groups, generator=generator) < 0.5, mother, father)
    moves = torch.randint(-2, 3, (n_groups,), generator=generator)
    moved = torch.rand(n_groups, generator=generator) < 1.5 / n_groups
    return elastic.keep_levels.clamp(child + moves * moved)
