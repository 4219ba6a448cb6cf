"""One episode in NumPy is the same one in tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.utils import seeding
from nets import make_data, make_elastic

from rlprune.envs.running.single import NumpyEpisode, TensorEpisode, single
from rlprune.envs.screen import Screen
from rlprune.envs.world import World
from rlprune.profiles.latency import Latency

NETWORK = make_elastic("residual")
DATA = make_data(12)
BOOK = [[0, 0, 0], [1, 1, 1], [2, 2, 2], [2, 2, 2], [4, 4, 4]]  # two are the same
LATENCY = Latency(NETWORK.keep_ratios, 1, 1.0, 0.5, 4.0, 1.0, ((0.0, 0.1, 0.2, 0.3, 0.4),) * 3, 0.0, {}, {})


def world(**settings: Any) -> World:
    return World(NETWORK, DATA, action="profiles", **{"codebook": BOOK} | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_passes": 1},
        {"max_passes": 2, "penalty": (0.05, 0.5), "policy_cost": (50, 1000)},
        {"max_passes": 3, "combine": 0.3, "control_variate": True, "cost": "params"},
        {"max_passes": 3, "combine": 2.0, "pool": 0, "policy_cost": [50, 1000]},
        {"max_passes": 3, "cost": LATENCY},
        {"max_passes": 2, "codebook": BOOK[:2], "control_variate": True},
    ],
)
def test_numbers_are_those_of_tensors(settings: dict[str, Any]) -> None:
    made = world(**settings)
    quick, slow = single(made, Screen(made)), TensorEpisode(made, Screen(made))
    assert isinstance(quick, NumpyEpisode) and quick.passes == slow.passes == 0
    generator = seeding.np_random(3)[0]
    for _ in range(25):
        start = made.draw(generator)
        (seen, info), (expected, expected_info) = quick.begin(*start), slow.begin(*start)
        done = False
        while True:
            np.testing.assert_allclose(seen, expected, atol=1e-6)
            assert seen.dtype == np.float32 and info.keys() == expected_info.keys()
            np.testing.assert_equal(info, expected_info)
            if done:
                break
            action = int(generator.integers(made.actions.n_choices[0]))
            seen, reward, done, info = quick.step(action)
            expected, expected_reward, expected_done, expected_info = slow.step(np.int64(action))
            assert (reward, done, quick.passes) == (expected_reward, expected_done, slow.passes)


def test_what_is_shown_or_has_no_profiles_runs_in_tensors() -> None:
    made = world()
    assert isinstance(single(made, Screen(made, "rgb_array")), TensorEpisode)
    levels = World(NETWORK, DATA)
    assert isinstance(single(levels, Screen(levels)), TensorEpisode)


def test_what_an_episode_gave_does_not_change_later() -> None:
    made = world(max_passes=2)
    episode = NumpyEpisode(made)
    seen = [episode.begin(1, 0.3)[0]]
    for action in (2, 4):
        observation, *_, info = episode.step(action)
        seen += [observation, info["keep_ratios"]]
    before = [each.copy() for each in seen]
    for each in seen:
        each += 1  # nothing of it is remembered
    again = [episode.begin(1, 0.3)[0]]
    for action in (2, 4):
        observation, *_, info = episode.step(action)
        again += [observation, info["keep_ratios"]]
    np.testing.assert_equal(again, before)
