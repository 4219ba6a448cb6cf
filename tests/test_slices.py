from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from nets import make_centred, make_data, make_levels, make_policy, relative_error

from rlprune.actions import sorted_codebook
from rlprune.cost import Cost
from rlprune.errors import RLPruneError
from rlprune.runtime import DynamicCNN
from rlprune.slices import Slices

NETWORK = make_centred()
DATA = make_data(60)
BOOK = sorted_codebook(make_levels(NETWORK, 16, seed=3), Cost(NETWORK))
N_DENSE = sum(p.numel() for p in NETWORK.slice(NETWORK.full).parameters())


def dynamic_of(memory: float) -> DynamicCNN:
    policy = make_policy(NETWORK, DATA, BOOK, max_passes=3, seed=1)
    return DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes, memory=memory)


@pytest.mark.parametrize("memory", [0, 0.5, 2, 100])
def test_no_more_is_held_than_there_is_room_for_and_predictions_are_the_same(memory: float) -> None:
    dynamic, roomy = dynamic_of(memory), dynamic_of(100)
    assert dynamic.slices.n_parameters <= memory * N_DENSE
    found, expected = dynamic(DATA.images), roomy(DATA.images)
    assert len(found.profiles.unique()) > 4
    assert torch.equal(found.profiles, expected.profiles)
    assert torch.equal(found.probabilities, expected.probabilities)
    largest = max(sum(p.numel() for p in roomy.slices[k].parameters()) for k in range(len(BOOK)))
    assert dynamic.slices.n_parameters <= max(memory * N_DENSE, largest)


@torch.no_grad()
def test_each_is_the_slice_of_its_profile_also_when_it_had_to_go() -> None:
    slices, images = Slices(NETWORK, BOOK, memory=0), DATA.normalised()
    for profile in (0, 5, 0, 10, 5):
        assert relative_error(slices[profile](slices.stem(images)), NETWORK.slice(BOOK[profile])(images)) < 1e-5
        assert slices[profile] is slices[profile]


def test_what_was_not_used_for_longest_goes_first() -> None:
    whole = Slices(NETWORK, BOOK[:3], memory=100)
    sizes = sorted(sum(p.numel() for p in whole[k].parameters()) for k in range(3))
    slices = Slices(NETWORK, BOOK[:3], memory=(sizes[1] + sizes[2]) / N_DENSE)  # for any two, not for three
    first, second = slices[0], slices[1]
    assert slices[0] is first
    assert slices[2] is slices[2]
    assert slices[0] is first
    assert slices[1] is not second


def test_several_threads_may_predict_at_once() -> None:
    dynamic = dynamic_of(0.5)
    expected = dynamic(DATA.images)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: dynamic(DATA.images[n : n + 15]), [0, 15, 30, 45] * 8))
    for n, one in enumerate(found):
        start = n % 4 * 15
        assert torch.equal(one.profiles, expected.profiles[start : start + 15])
        assert relative_error(one.probabilities, expected.probabilities[start : start + 15]) < 1e-5


@pytest.mark.parametrize("memory", [-1, float("nan")])
def test_memory_is_checked(memory: float) -> None:
    with pytest.raises(RLPruneError, match=f"memory is {memory}; a number of 0 or more"):
        Slices(NETWORK, BOOK, memory=memory)
