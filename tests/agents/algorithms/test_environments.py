"""Wrappers that change what an agent sees or does are refused, all others do not matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers
from nets import make_data, make_elastic
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from rlprune.agents import KeepRatioVecEnv, extract_policy
from rlprune.envs import KeepRatioEnv, World
from rlprune.errors import RLPruneError

NETWORK = make_elastic("residual")
DATA = make_data(40)
RULES: dict[str, Any] = {"action": "profiles", "max_passes": 2}
WORLD = World(NETWORK, DATA, **RULES)


def agent_in(env: Any) -> PPO:
    return PPO("MlpPolicy", env, n_steps=4, batch_size=4, device="cpu")


def single(wrap: Callable[[Any], Any]) -> DummyVecEnv:
    return DummyVecEnv([lambda: wrap(KeepRatioEnv(NETWORK, DATA, **RULES))])


def halved(env: Any) -> Any:
    return wrappers.TransformObservation(env, lambda seen: seen / 2, env.observation_space)


class Turned(VecEnvWrapper):
    def reset(self) -> Any:
        return -self.venv.reset()

    def step_wait(self) -> Any:
        seen, *rest = self.venv.step_wait()
        return (-seen, *rest)


class Quiet(gymnasium.Wrapper):  # type: ignore[type-arg]
    def step(self, action: Any) -> Any:
        seen, *rest = self.env.step(action)
        return (seen * 0, *rest)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: single(halved), "TransformObservation"),
        (lambda: single(lambda env: Monitor(halved(env))), "TransformObservation"),
        (lambda: single(wrappers.NormalizeObservation), "NormalizeObservation"),
        (lambda: single(lambda env: wrappers.RescaleObservation(env, -1, np.float32(1))), "RescaleObservation"),
        (lambda: single(lambda env: wrappers.DelayObservation(env, 1)), "DelayObservation"),
        (lambda: single(lambda env: wrappers.StickyAction(env, 0.3)), "StickyAction"),
        (lambda: single(Quiet), "Quiet"),
        (lambda: Turned(KeepRatioVecEnv(WORLD, 2)), "Turned"),
        (lambda: VecMonitor(Turned(KeepRatioVecEnv(WORLD, 2))), "Turned"),
        (lambda: VecFrameStack(KeepRatioVecEnv(WORLD, 2), 2), "VecFrameStack"),
    ],
)
def test_a_wrapper_that_may_change_what_is_seen_or_done_is_named(make: Callable[[], Any], name: str) -> None:
    message = f"an agent whose environment is wrapped in {name} cannot be exported: .* train without"
    with pytest.raises(RLPruneError, match=message):
        extract_policy(agent_in(make()), WORLD)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VecMonitor(VecCheckNan(KeepRatioVecEnv(WORLD, 2))),
        lambda: VecNormalize(KeepRatioVecEnv(WORLD, 2), norm_obs=False),
        lambda: single(lambda env: Monitor(wrappers.TimeLimit(wrappers.OrderEnforcing(env), 3))),
        lambda: single(lambda env: wrappers.TransformReward(env, lambda reward: reward * 2)),
    ],
)
def test_wrappers_that_keep_records_or_change_rewards_do_not_matter(make: Callable[[], Any]) -> None:
    assert extract_policy(agent_in(make()), WORLD).observer is WORLD.observer


def test_wrappers_in_other_processes_are_known_by_their_names() -> None:
    env = SubprocVecEnv([lambda: Monitor(halved(KeepRatioEnv(NETWORK, DATA, **RULES)))], start_method="fork")
    try:
        with pytest.raises(RLPruneError, match="wrapped in TransformObservation cannot be exported"):
            extract_policy(agent_in(env), WORLD)
    finally:
        env.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": make_data(30)}, "the agent was trained with other observations than this world's; give the world"),
        ({"codebook": [[0] * NETWORK.n_groups, *NETWORK.full[None].tolist()]}, r"the agent chooses from Discrete\("),
        ({"pool": 0}, r"the agent sees Box\(.* the world has Box"),
    ],
)
def test_another_world_than_the_agent_s_is_refused(change: dict[str, Any], message: str) -> None:
    rules = {"data": DATA, **RULES} | change
    other = World(NETWORK, rules.pop("data"), **rules)
    with pytest.raises(RLPruneError, match=message):
        extract_policy(agent_in(KeepRatioVecEnv(WORLD, 2)), other)


def test_an_agent_without_an_environment_is_taken_as_it_is(tmp_path: Any) -> None:
    agent_in(KeepRatioVecEnv(WORLD, 2)).save(tmp_path / "agent.zip")
    agent = PPO.load(tmp_path / "agent.zip", device="cpu")
    assert agent.env is None and extract_policy(agent, WORLD).observer is WORLD.observer
