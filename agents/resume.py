"""All that a rollout depends on, kept in checkpoints, so that a run goes on as if it had never been interrupted.

Stable-Baselines3 keeps the agent itself: weights, optimiser, counters, the last observations and the last episodes'
rewards. Here are the rest: random generators, the episodes that are under way, and their rewards so far.
"""

from __future__ import annotations

import random
from typing import Any, Protocol, cast

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecMonitor


class _Resumable(Protocol):
    """An environment that can say all that its next steps depend on."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


_STATE = "rlprune_state"
"""The attribute of an agent that holds it: Stable-Baselines3 saves all attributes."""


def keep_state(agent: BaseAlgorithm) -> None:
    """Let what is saved of an agent next have all that its next rollout depends on."""
    assert agent.env is not None
    state: dict[str, Any] = {"generators": _generators(agent.device), "env": _of_env(agent.env)}
    if isinstance(agent, OffPolicyAlgorithm):  # which draws actions from their space
        state["actions"] = agent.action_space.np_random.bit_generator.state
    setattr(agent, _STATE, state)


def has_state(agent: BaseAlgorithm) -> bool:
    """Whether an agent was loaded with such a state; earlier versions' checkpoints have none."""
    return hasattr(agent, _STATE)


def restore_state(agent: BaseAlgorithm) -> None:
    """Put everything back as it was when the agent was saved."""
    assert agent.env is not None
    state = getattr(agent, _STATE)
    _restore_env(agent.env, state["env"])
    _restore_generators(state["generators"])
    if "actions" in state:
        agent.action_space.np_random.bit_generator.state = state["actions"]


def _generators(device: torch.device) -> dict[str, Any]:
    """The states of all random generators of this process."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if device.type == "cuda" else [],
    }


def _restore_generators(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


def _of_env(env: VecEnv) -> dict[str, Any]:
    """The state of the environment, and of the monitor around it."""
    state: dict[str, Any] = {}
    if isinstance(env, VecMonitor):
        state["monitor"] = (env.episode_returns.copy(), env.episode_lengths.copy(), env.episode_count)
    return state | {"inner": cast(_Resumable, env.unwrapped).state()}


def _restore_env(env: VecEnv, state: dict[str, Any]) -> None:
    if isinstance(env, VecMonitor):
        returns, lengths, env.episode_count = state["monitor"]
        env.episode_returns, env.episode_lengths = returns.copy(), lengths.copy()
    cast(_Resumable, env.unwrapped).restore(state["inner"])
