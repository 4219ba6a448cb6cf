"""Further arguments of Stable-Baselines3's PPO, checked before anything is trained with them."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy

from rlprune.agents.settings import MOST_DECISIONS
from rlprune.errors import RLPruneError
from rlprune.utils.hardware import check_device
from rlprune.utils.settings import (
    AtMost,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    describe,
)

_SEEN_LATE = ("ent_coef", "vf_coef", "max_grad_norm")
"""What PPO itself looks at in its first update alone."""
Schedule = Callable[[float], float]
_Device = Annotated[str, AfterValidator(lambda device: device if device == "auto" else check_device(device))]
_Weight = Annotated[NonNegativeFloat, AtMost(1000)]
_TYPES: dict[str, Any] = {
    "learning_rate": Annotated[NonNegativeFloat, AtMost(100)] | Schedule,
    "n_steps": Annotated[PositiveInt, AtMost(2**16)],
    "batch_size": Annotated[int, Field(ge=2), AtMost(2**20)],
    "n_epochs": Annotated[PositiveInt, AtMost(1000)],
    "gamma": Share,
    "gae_lambda": Share,
    "clip_range": Annotated[PositiveFloat, AtMost(1000)] | Schedule,
    "clip_range_vf": Annotated[PositiveFloat, AtMost(1000)] | Schedule | None,
    "normalize_advantage": bool,
    "ent_coef": _Weight,
    "vf_coef": _Weight,
    "max_grad_norm": PositiveFloat,
    "use_sde": bool,
    "sde_sample_freq": Annotated[int, Field(ge=-1), AtMost(2**31 - 1)],
    "rollout_buffer_kwargs": dict[str, Any] | None,
    "target_kl": PositiveFloat | None,
    "stats_window_size": Annotated[PositiveInt, AtMost(2**22)],
    "tensorboard_log": str | None,
    "verbose": Literal[0, 1, 2],
    "seed": Seed | None,
    "device": _Device | torch.device,
    "_init_setup_model": Literal[True],
}
"""What the arguments may be, by their names; what is not here is for PPO itself to judge."""
_ALLOWED = [name for name in inspect.signature(PPO).parameters if name not in ("policy", "env")]
_OF_POLICY = [name for name in inspect.signature(ActorCriticPolicy).parameters if not name.endswith("_space")][1:]


def check_ppo(ppo: dict[str, Any], n_envs: int, *, continuous: bool = False) -> None:
    """Make sure that PPO takes arguments, and that training with them can end.

    Args:
        ppo: by name.
        n_envs: decisions at once.
        continuous: whether actions are numbers, not choices.

    Raises:
        RLPruneError: one of them is unknown, or cannot be.
    """
    if not isinstance(more := ppo.get("policy_kwargs") or {}, dict):
        raise RLPruneError(f"ppo has policy_kwargs={more!r}; give an object, such as {{'ortho_init': false}}")
    if "net_arch" in more:
        raise RLPruneError(
            "ppo has a net_arch; give the widths as hidden, because what a decision costs depends on them"
        )
    if not _all_finite(ppo):
        raise RLPruneError(f"ppo has a number that is not finite: {ppo}; give finite ones")
    for kind, given, allowed in (("", ppo, _ALLOWED), ("'s policy", more, _OF_POLICY)):
        unknown = [key for key in given if key not in allowed]
        if unknown:
            raise RLPruneError(f"PPO{kind} has no argument {unknown[0]!r}; allowed: {', '.join(allowed)}")
    for name, value in ppo.items():
        if name in _TYPES:
            _check(name, value)
    if n_envs * ppo.get("n_steps", 1) > MOST_DECISIONS:
        raise RLPruneError(
            f"PPO does not take {{'n_steps': {ppo['n_steps']}}}: with n_envs={n_envs} that is more than "
            f"{MOST_DECISIONS} decisions, all kept in memory; give fewer"
        )
    _try(ppo, continuous=continuous)


def _all_finite(value: Any) -> bool:
    """Whether no number is NaN or infinite, in containers neither."""
    if isinstance(value, dict):
        return _all_finite(list(value.values()))
    if isinstance(value, list | tuple):
        return all(map(_all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _check(name: str, value: Any) -> None:
    """Make sure that an argument is of its type and in its range.

    Raises:
        RLPruneError: it is not.
    """
    hint = _TYPES[name]
    try:
        TypeAdapter(hint, config={"strict": True, "arbitrary_types_allowed": True}).validate_python(value)
    except ValidationError as error:
        reasons = [each.get("ctx", {}).get("error") for each in error.errors()]
        words = next((str(reason) for reason in reasons if reason is not None), f"give {describe(hint)}")
        verb = "cannot train with" if name in _SEEN_LATE else "does not take"
        given = {name: value}
        raise RLPruneError(f"Stable-Baselines3's PPO {verb} {given}: {words}") from error


def _try(ppo: dict[str, Any], *, continuous: bool) -> None:
    """Let PPO itself judge arguments, in a world of its own that costs nothing.

    Raises:
        RLPruneError: it does not take them.
    """
    small = {"n_steps": 2, "batch_size": 2, "device": "cpu", "seed": None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            PPO("MlpPolicy", _Nothing(continuous=continuous), **ppo | small)
    except Exception as error:
        raise RLPruneError(f"PPO does not take {ppo}: {error}") from error


class _Nothing(gym.Env[Any, Any]):
    """A world in which nothing happens."""

    def __init__(self, *, continuous: bool) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32) if continuous else spaces.Discrete(2)
