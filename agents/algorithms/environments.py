"""Wrappers around an agent's environment: what they do to observations or actions is not in an exported policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import gymnasium
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper, VecNormalize
from torch import Tensor

from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer

_HARMLESS = {
    "stable_baselines3.common.vec_env.vec_monitor.VecMonitor",
    "stable_baselines3.common.vec_env.vec_check_nan.VecCheckNan",
    "stable_baselines3.common.vec_env.vec_video_recorder.VecVideoRecorder",
    "stable_baselines3.common.monitor.Monitor",
    "sb3_contrib.common.wrappers.action_masker.ActionMasker",
    "gymnasium.wrappers.common.Autoreset",
    "gymnasium.wrappers.common.OrderEnforcing",
    "gymnasium.wrappers.common.PassiveEnvChecker",
    "gymnasium.wrappers.common.RecordEpisodeStatistics",
    "gymnasium.wrappers.common.TimeLimit",
    "gymnasium.wrappers.rendering.AddWhiteNoise",
    "gymnasium.wrappers.rendering.HumanRendering",
    "gymnasium.wrappers.rendering.ObstructView",
    "gymnasium.wrappers.rendering.RecordVideo",
    "gymnasium.wrappers.rendering.RenderCollection",
    "gymnasium.wrappers.stateful_reward.NormalizeReward",
    "gymnasium.wrappers.transform_observation.FlattenObservation",
    "gymnasium.wrappers.transform_reward.ClipReward",
    "gymnasium.wrappers.transform_reward.TransformReward",
}
"""Wrappers through which observations and actions go unchanged."""
_BASE = "KeepRatioEnv"


class _World(Protocol):
    """What an agent sees, and what its choices mean."""

    observer: Observer
    actions: Actions

    @property
    def observation_space(self) -> gymnasium.Space[Any]: ...

    @property
    def action_space(self) -> gymnasium.Space[Any]: ...


def check_environment(agent: BaseAlgorithm, world: _World) -> None:
    """Make sure that an agent sees what a world shows, and that its actions mean what they mean there.

    Args:
        agent: the agent; one that was loaded without an environment is taken to have learnt in this world as it is.
        world: the world whose observations its policy will see.

    Raises:
        RLPruneError: its environment is wrapped in something that may change observations or actions; or its spaces,
            observations or codebook are others than the world's.
    """
    if agent.env is not None:
        for kind, name in _wrappers(agent.env):
            _check_wrapper(kind, name)
    for what, seen, needed in (
        ("sees", agent.observation_space, world.observation_space),
        ("chooses from", agent.action_space, world.action_space),
    ):
        if seen != needed:
            raise RLPruneError(
                f"the agent {what} {_short(seen)}, the world has {_short(needed)}; give the world that it was trained "
                "in, and an environment without wrappers that change observations or actions"
            )
    for learnt in () if agent.env is None else _worlds(agent.env):
        if learnt is not world:
            _check_same(learnt, world)


def _short(space: gymnasium.Space[Any]) -> str:
    """A space in few words: those of many numbers are long."""
    text = " ".join(str(space).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_wrapper(kind: type | None, name: str) -> None:
    if kind is VecNormalize:
        raise RLPruneError(
            "an agent that normalises observations (VecNormalize) or extracts features cannot be exported; "
            "observations come standardised, so train without (norm_obs=False normalises rewards alone)"
        )
    if name not in _HARMLESS and name not in {harmless.rpartition(".")[2] for harmless in _HARMLESS if kind is None}:
        raise RLPruneError(
            f"an agent whose environment is wrapped in {name.rpartition('.')[2]} cannot be exported: what that does to "
            "observations or actions would be missing where the policy is deployed; train without"
        )


def _wrappers(env: VecEnv) -> Iterator[tuple[type | None, str]]:
    """Classes, where they are in this process, and names of all wrappers around the environments of an agent."""
    while isinstance(env, VecEnvWrapper):
        if not (type(env) is VecNormalize and not env.norm_obs):
            yield type(env), _name(type(env))
        env = env.venv
    if isinstance(env, DummyVecEnv):
        for single in env.envs:
            yield from _around(single)
    elif isinstance(env, SubprocVecEnv):
        for text in env.env_method("__str__"):
            yield from ((None, name) for name in text.partition(_BASE)[0].split("<") if name)


def _around(env: gymnasium.Env[Any, Any]) -> Iterator[tuple[type, str]]:
    while isinstance(env, gymnasium.Wrapper):
        yield type(env), _name(type(env))
        env = env.env


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _worlds(env: VecEnv) -> Iterator[_World]:
    """The worlds of an agent's environments, where they are in this process."""
    base = env.unwrapped
    singles = [single.unwrapped for single in base.envs] if isinstance(base, DummyVecEnv) else [base]
    yield from (single.world for single in singles if hasattr(single, "world"))


def _check_same(learnt: _World, world: _World) -> None:
    """Make sure that two worlds show the same, and mean the same by an action.

    Raises:
        RLPruneError: they do not.
    """
    cure = "give the world that the agent was trained in (env.unwrapped.world)"
    if not _alike(learnt.observer, world.observer):
        raise RLPruneError(f"the agent was trained with other observations than this world's; {cure}")
    if not _alike(_meaning(learnt.actions), _meaning(world.actions)):
        raise RLPruneError(f"the agent was trained with other profiles or levels than this world's; {cure}")


def _meaning(actions: Actions) -> tuple[Any, ...]:
    """All that the meaning of an action depends on."""
    codebook = actions.codebook if actions.kind == "profiles" else None
    return actions.kind, actions.keep_levels, actions.max_passes, codebook


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are the same, up to rounding."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-6)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if dataclasses.is_dataclass(one):
        return all(_alike(getattr(one, part.name), getattr(other, part.name)) for part in dataclasses.fields(one))
    return one is other or bool(one == other)
