from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from nets import make_centred, make_data, make_levels, make_policy, relative_error

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.slices import Slices
from rlprune.errors import RLPruneError
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

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
    for _ in range(3):
        found, expected = dynamic(DATA.images), roomy(DATA.images)
        assert dynamic.slices.n_parameters <= memory * N_DENSE
        assert len(found.profiles.unique()) > 4
        assert torch.equal(found.profiles, expected.profiles)
        assert relative_error(found.probabilities, expected.probabilities) < 1e-5


@torch.no_grad()
def test_each_is_the_slice_of_its_profile_whether_there_is_room_or_not() -> None:
    images = DATA.normalised()
    for memory in (0.0, 0.5):
        slices = Slices(NETWORK, BOOK, memory=memory)
        for profile in (0, 5, 0, 10, 5):
            for body in (slices[profile], slices.prepared(profile)):
                logits = body(slices.stem(images))
                assert relative_error(logits, NETWORK.slice(BOOK[profile])(images)) < 1e-5


def test_what_is_used_twice_as_often_takes_the_place_of_others() -> None:
    sizes = sorted(int(size) for size in Cost(NETWORK).of(BOOK[:3]).params - Cost(NETWORK).stem.params)
    slices = Slices(NETWORK, BOOK[:3], memory=(sizes[1] + sizes[2]) / N_DENSE + 1e-9)  # for any two, not for three
    first, second = slices[0], slices[1]
    assert slices[0] is first
    assert [type(slices[2]) for _ in range(2)] == [type(slices._shared[2])] * 2  # used once, and twice
    third = slices[2]  # three times, more than twice as often as the second, which was used once
    assert third is slices[2] and third is not slices._shared[2]
    assert slices[1] is not second
    assert slices[0] is first


def test_what_is_used_alike_is_not_prepared_over_and_over(monkeypatch: pytest.MonkeyPatch) -> None:
    slices, prepared = Slices(NETWORK, BOOK, memory=0.5), []
    prepare = Slices._prepared
    monkeypatch.setattr(Slices, "_prepared", lambda self, *of: prepared.append(of) or prepare(self, *of))
    for _ in range(50):
        for profile in range(len(BOOK)):
            slices[profile]
    assert prepared == []


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
