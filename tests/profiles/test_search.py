from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import make_data, make_elastic

from rlprune.errors import RLPruneError
from rlprune.metrics import accuracy
from rlprune.profiles.cost import Cost
from rlprune.profiles.search import Search, best_within, choose_codebook, profile_accuracies, search_profiles

NETWORK = make_elastic("residual")
DATA = make_data(40)
COST = Cost(NETWORK)


def shares_of(profiles: torch.Tensor) -> torch.Tensor:
    return COST.of(profiles).macs.double() / COST.dense.macs


def points(pairs: list[tuple[int, int]]) -> Search:
    """Profiles of given cost and accuracy."""
    macs, share = zip(*pairs, strict=True)
    profiles = torch.arange(len(pairs))[:, None]
    return Search(profiles, torch.tensor(share, dtype=torch.float64) / 10, torch.tensor(macs, dtype=torch.float64))


def best_mixture(found: Search, budget: int) -> float:
    """The highest accuracy that a mixture of two profiles has at this mean cost, or one profile below it."""
    macs, share = found.price.tolist(), found.accuracy.tolist()
    best = max(a for m, a in zip(macs, share, strict=True) if m <= budget)
    for i, j in itertools.permutations(range(len(macs)), 2):
        if macs[i] <= budget < macs[j]:
            weight = (budget - macs[i]) / (macs[j] - macs[i])
            best = max(best, (1 - weight) * share[i] + weight * share[j])
    return best


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 10)), min_size=1, max_size=12))
def test_nothing_mixed_of_two_profiles_lies_above_the_frontier(pairs: list[tuple[int, int]]) -> None:
    found = points(pairs)
    frontier = found.frontier()
    macs, share = found.price[frontier].numpy(), found.accuracy[frontier].numpy()
    for budget in range(int(found.price.min()), 14):
        assert np.interp(budget, macs, share) == pytest.approx(best_mixture(found, budget), abs=1e-12)
    assert (np.diff(macs) > 0).all() and (np.diff(share) > 0).all()
    assert (np.diff(np.diff(share) / np.diff(macs)) < 1e-12).all()


def test_a_frontier_by_hand() -> None:
    #                 cheapest, below the line, best in the middle, dear and worse, best
    found = points([(1, 2), (2, 3), (3, 8), (5, 7), (9, 9), (9, 9), (1, 1)])
    assert found.frontier().tolist() in ([0, 2, 4], [0, 2, 5])


def test_profile_accuracies_are_those_of_the_slices() -> None:
    profiles = torch.tensor([[0, 0, 0], [2, 4, 1], [4, 4, 4]])
    expected = [accuracy(lambda images, p=p: NETWORK(images, p), DATA) for p in profiles]
    assert profile_accuracies(NETWORK, DATA, profiles).tolist() == expected


@pytest.mark.parametrize("n_candidates", [5, 6, 30])
def test_a_search_tries_as_many_profiles_as_it_may_each_once(n_candidates: int) -> None:
    found = search_profiles(NETWORK, DATA, n_candidates)
    assert len(found.profiles) == len(found.profiles.unique(dim=0)) == n_candidates
    assert {(level,) * 3 for level in range(5)} <= set(map(tuple, found.profiles.tolist()))
    assert torch.equal(found.price, shares_of(found.profiles))
    assert torch.equal(found.accuracy, profile_accuracies(NETWORK, DATA, found.profiles))


def test_the_seed_decides_what_is_tried() -> None:
    first, again, other = (search_profiles(NETWORK, DATA, 20, seed) for seed in (0, 0, 1))
    assert torch.equal(first.profiles, again.profiles) and not torch.equal(first.profiles, other.profiles)


def test_a_search_tries_others_beside_its_own_if_asked_to() -> None:
    also = torch.tensor([[0, 3, 1], [3, 0, 2], [4, 4, 4]])  # the last one is among the uniform ones anyway
    found = search_profiles(NETWORK, DATA, 20, also=also)
    assert len(found.profiles) == len(found.profiles.unique(dim=0)) == 23
    assert {tuple(profile) for profile in also.tolist()} <= set(map(tuple, found.profiles.tolist()))
    assert torch.equal(found.accuracy, profile_accuracies(NETWORK, DATA, found.profiles))


def test_a_search_without_room_for_the_uniform_profiles_is_refused() -> None:
    with pytest.raises(RLPruneError, match="n_candidates is 4; at least 5, the uniform profiles, are needed"):
        search_profiles(NETWORK, DATA, 4)


@pytest.mark.parametrize("n_profiles", [1, 2, 3, 6, 16])
def test_a_codebook_is_sorted_and_ends_with_the_whole_network(n_profiles: int) -> None:
    found = search_profiles(NETWORK, DATA, 30)
    codebook = choose_codebook(NETWORK, found, n_profiles)
    macs = COST.of(codebook).macs
    assert 1 <= len(codebook) <= n_profiles
    assert (macs.diff() > 0).all() and torch.equal(codebook[-1], NETWORK.full)
    frontier = {tuple(profile) for profile in found.profiles[found.frontier()].tolist()}
    assert set(map(tuple, codebook[:-1].tolist())) <= frontier
    assert n_profiles == 1 or tuple(codebook[0].tolist()) == tuple(found.profiles[found.frontier()[0]].tolist())


@pytest.mark.parametrize("n_profiles", [0, 17])
def test_a_codebook_of_another_size_is_refused(n_profiles: int) -> None:
    with pytest.raises(RLPruneError, match=rf"n_profiles is {n_profiles}; from 1 to 16 is allowed"):
        choose_codebook(NETWORK, search_profiles(NETWORK, DATA, 5), n_profiles)


def some_profiles(shares: list[int]) -> Search:
    """Different profiles of the network, with their true cost and accuracies (in tenths) that are made up."""
    every = torch.tensor(list(itertools.product(range(5), repeat=3)))
    profiles = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[: len(shares)]]
    return Search(profiles, torch.tensor(shares, dtype=torch.float64) / 10, shares_of(profiles))


@given(st.lists(st.integers(0, 10), min_size=2, max_size=12), st.lists(st.floats(0, 0.99), min_size=1, max_size=4))
def test_for_every_budget_nothing_found_is_better_and_within(shares: list[int], parts: list[float]) -> None:
    found = some_profiles(shares)
    cheapest = float(found.price.min()) + 1e-6
    assert cheapest < 1
    budgets = [cheapest + part * (1 - cheapest) for part in parts]
    codebook = best_within(NETWORK, found, budgets)
    macs = COST.of(codebook).macs
    assert 1 <= len(codebook) <= len(budgets) and (macs.diff() >= 0).all()
    assert len(codebook.unique(dim=0)) == len(codebook)
    rows = [(found.profiles == profile).all(1).nonzero().item() for profile in codebook]
    for budget in budgets:
        best = max(float(a) for a, m in zip(found.accuracy, found.price, strict=True) if float(m) <= budget)
        assert any(float(found.price[row]) <= budget and float(found.accuracy[row]) == best for row in rows)


def test_profiles_within_budgets_by_hand() -> None:
    profiles = torch.stack([NETWORK.uniform(level) for level in range(5)])
    macs = COST.of(profiles).macs
    found = Search(profiles, torch.tensor([0.2, 0.7, 0.5, 0.6, 0.9], dtype=torch.float64), shares_of(profiles))
    just = [(float(m) + 0.5) / int(COST.dense.macs) for m in macs]
    assert best_within(NETWORK, found, [just[0], just[3], 1.0]).tolist() == profiles[[0, 1, 4]].tolist()
    assert best_within(NETWORK, found, [just[1], just[2]]).tolist() == profiles[[1]].tolist()


def test_where_nothing_is_better_than_guessing_the_dearest_profile_within_is_taken() -> None:
    profiles = torch.stack([NETWORK.uniform(level) for level in range(5)])
    accuracy = torch.tensor([0.32, 0.3, 0.28, 0.31, 0.9], dtype=torch.float64)
    found = Search(profiles, accuracy, shares_of(profiles), guessed=0.35)
    budgets = [float(found.price[3]), float(found.price[1])]
    assert best_within(NETWORK, found, budgets).tolist() == profiles[[1, 3]].tolist()
    assert best_within(NETWORK, replace(found, guessed=0.31), budgets).tolist() == profiles[[0]].tolist()


def test_a_search_knows_what_guessing_reaches_and_keeps_it() -> None:
    found = search_profiles(NETWORK, DATA, 5)
    share = float(DATA.labels.bincount().max()) / 40
    assert found.guessed == pytest.approx(share + 3 * (share * (1 - share) / 40) ** 0.5)
    assert Search.from_json(found.to_json()).guessed == found.guessed == found.by_macs(NETWORK).guessed
    earlier = {name: value for name, value in found.to_json().items() if name != "guessed"}
    assert Search.from_json(earlier).guessed == 0


@pytest.mark.parametrize("budget", [1, 1.5])
def test_a_budget_of_everything_is_the_whole_network_even_if_others_are_as_good(budget: float) -> None:
    found = some_profiles([9, 9, 9])
    assert best_within(NETWORK, found, [budget]).tolist() == [[4, 4, 4]]
    assert best_within(NETWORK, found, [0.9, budget])[-1].tolist() == [4, 4, 4]


def test_a_budget_below_the_cheapest_profile_is_refused() -> None:
    found = some_profiles([5, 6, 7])
    cheapest = float(found.price.min())
    message = rf"budget 0\.001 is below the cheapest profile found, which costs {cheapest:.3f}"
    with pytest.raises(RLPruneError, match=message):
        best_within(NETWORK, found, [0.001, 1.0])


def test_a_search_that_has_to_end_has_tried_the_uniform_profiles() -> None:
    full = search_profiles(NETWORK, DATA, 20, late=lambda: False)
    assert full.profiles.equal(search_profiles(NETWORK, DATA, 20).profiles)
    asked = iter([False, *[True] * 1000])
    found = search_profiles(NETWORK, DATA, 20, late=lambda: next(asked))
    uniform = {tuple(NETWORK.uniform(level).tolist()) for level in range(NETWORK.n_levels)}
    assert uniform <= set(map(tuple, found.profiles.tolist())) and len(found.profiles) <= len(uniform) + 1
