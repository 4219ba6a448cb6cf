from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import make_data, make_elastic

from rlprune.cost import Cost
from rlprune.errors import RLPruneError
from rlprune.pretrain import accuracy
from rlprune.search import Search, choose_codebook, profile_accuracies, search

NETWORK = make_elastic("residual")
DATA = make_data(40)
COST = Cost(NETWORK)


def points(pairs: list[tuple[int, int]]) -> Search:
    """Profiles of given cost and accuracy."""
    macs, share = zip(*pairs, strict=True)
    profiles = torch.arange(len(pairs))[:, None]
    return Search(profiles, torch.tensor(share, dtype=torch.float64) / 10, torch.tensor(macs))


def best_mixture(found: Search, budget: int) -> float:
    """The highest accuracy that a mixture of two profiles has at this mean cost, or one profile below it."""
    macs, share = found.macs.tolist(), found.accuracy.tolist()
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
    macs, share = found.macs[frontier].numpy(), found.accuracy[frontier].numpy()
    for budget in range(int(found.macs.min()), 14):
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
    found = search(NETWORK, DATA, n_candidates)
    assert len(found.profiles) == len(found.profiles.unique(dim=0)) == n_candidates
    assert {(level,) * 3 for level in range(5)} <= set(map(tuple, found.profiles.tolist()))
    assert torch.equal(found.macs, COST.of(found.profiles).macs)
    assert torch.equal(found.accuracy, profile_accuracies(NETWORK, DATA, found.profiles))


def test_the_seed_decides_what_is_tried() -> None:
    first, again, other = (search(NETWORK, DATA, 20, seed) for seed in (0, 0, 1))
    assert torch.equal(first.profiles, again.profiles) and not torch.equal(first.profiles, other.profiles)


def test_a_search_without_room_for_the_uniform_profiles_is_refused() -> None:
    with pytest.raises(RLPruneError, match="n_candidates is 4; at least 5, the uniform profiles, are needed"):
        search(NETWORK, DATA, 4)


@pytest.mark.parametrize("n_profiles", [1, 2, 3, 6, 16])
def test_a_codebook_is_sorted_and_ends_with_the_whole_network(n_profiles: int) -> None:
    found = search(NETWORK, DATA, 30)
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
        choose_codebook(NETWORK, search(NETWORK, DATA, 5), n_profiles)
