"""Environments in which every episode has a penalty of its own."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from nets import make_data, make_elastic
from stable_baselines3.common import env_checker as sb3

from rlprune.agents.vec_env import KeepRatioVecEnv
from rlprune.envs import KeepRatioEnv
from rlprune.envs.sweep import run_sweep
from rlprune.envs.world import World
from rlprune.errors import RLPruneError

NETWORK, DATA, RANGE = make_elastic("residual"), make_data(30), (0.01, 1.0)
RULES: dict[str, Any] = {"action": "profiles", "max_passes": 2, "pool": 1}


def make(**settings: Any) -> KeepRatioEnv:
    return KeepRatioEnv(NETWORK, DATA, **RULES, **{"penalty": RANGE} | settings)


@pytest.mark.parametrize("action", ["levels", "ratios", "profiles"])
def test_both_checkers_are_content(action: str) -> None:
    env = gymnasium.make("rlprune/KeepRatio-v0", network=NETWORK, data=DATA, action=action, penalty=RANGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
        sb3.check_env(env.unwrapped)


@pytest.mark.parametrize(("penalty", "place"), [(0.01, 0.0), (0.1, 0.5), (1.0, 1.0)])
def test_the_penalty_is_seen_last_and_paid(penalty: float, place: float) -> None:
    env, fixed = make(), make(penalty=penalty)
    options = {"image": 3, "penalty": penalty}
    seen, as_fixed = env.reset(options=options)[0], fixed.reset(options={"image": 3})[0]
    assert seen[-1] == pytest.approx(place, abs=1e-6)
    assert np.array_equal(seen[:-1], as_fixed)
    for action in (0, 4):
        (seen, reward, *_), (as_fixed, expected, *_) = env.step(action), fixed.step(action)
        assert reward == pytest.approx(expected, abs=1e-6)
        assert seen[-1] == pytest.approx(place, abs=1e-6)
        assert np.array_equal(seen[:-1], as_fixed)


def test_penalties_are_drawn_evenly_by_logarithm() -> None:
    env = make()
    env.reset(seed=0)
    places = np.array([env.reset()[0][-1] for _ in range(2000)])
    counts = np.histogram(places, bins=10, range=(0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 28  # chi-squared of 9 degrees of freedom: 99.9 %


def test_many_episodes_are_those_of_single_ones() -> None:
    many, singles = KeepRatioVecEnv(World(NETWORK, DATA, penalty=RANGE, **RULES), 3), [make() for _ in range(3)]
    many.seed(5)
    observations = many.reset()
    expected = [env.reset(seed=5 + i)[0] for i, env in enumerate(singles)]
    rng = np.random.default_rng(0)
    for _ in range(12):
        assert np.allclose(observations, np.stack(expected), atol=1e-4)
        actions = rng.integers(6, size=3)
        observations, rewards, dones, _ = many.step(actions)
        for i, env in enumerate(singles):
            expected[i], reward, done, _, _ = env.step(actions[i])
            assert (reward, done) == (pytest.approx(rewards[i], abs=1e-6), dones[i])
            if done:
                expected[i] = env.reset()[0]


def test_sweeps_spread_penalties_over_the_range_or_take_one() -> None:
    world = World(NETWORK, DATA, penalty=RANGE, **RULES)
    seen: list[Any] = []

    def decide(observations: Any) -> Any:
        seen.append(observations[:, -1])
        return np.full(len(observations), 5)

    run_sweep(world, decide)
    places = np.sort(seen[0])
    assert np.abs(places - (np.arange(30) + 0.5) / 30).max() < 0.06
    seen.clear()
    assert run_sweep(world, decide, 0.1).rewards.shape == (30,)
    assert seen[0] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, {"penalty": 2.0}, r"options={'penalty': 2\.0}: allowed is 0\.01 to 1"),
        ({}, {"penalty": None}, r"options={'penalty': None}: allowed is 0\.01 to 1"),
        ({"penalty": 0.3}, {"penalty": 0.1}, r"options={'penalty': 0\.1}: allowed is 0\.3"),
        ({}, {"image": 30, "penalty": 0.1}, "options={'image': 30}: allowed are 'image', an index from 0 to 29, and"),
        ({}, {"price": 0.1}, r"options={'price': 0\.1}: allowed are 'image'"),
    ],
)
def test_episodes_that_cannot_be_are_refused(settings: Any, options: Any, message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        make(**settings).reset(options=options)


def test_an_observer_without_penalties_does_not_fit() -> None:
    observer = World(NETWORK, DATA, **RULES).observer
    with pytest.raises(RLPruneError, match=r"the observer has penalties=None, the environment penalties=0\.01 to 1"):
        make(observer=observer)


def test_a_range_may_be_an_array_and_a_penalty_a_whole_number() -> None:
    assert World(NETWORK, DATA, penalty=np.array(RANGE), **RULES).penalty == World(NETWORK, DATA, penalty=RANGE).penalty
    assert World(NETWORK, DATA, penalty=1).begin(torch.arange(2)).penalties.dtype == torch.float32


def test_a_fixed_penalty_draws_the_images_it_always_drew() -> None:
    env, rng = make(penalty=0.3), np.random.default_rng(0)
    env.reset(seed=0)
    env.np_random = rng
    images = [env.reset()[1]["image"] for _ in range(5)]
    assert images == np.random.default_rng(0).integers(30, size=5).tolist()
    assert torch.equal(World(NETWORK, DATA, penalty=0.3).begin(torch.arange(2)).penalties, torch.full((2,), 0.3))
