"""Further arguments of an algorithm of Stable-Baselines3, checked before anything is trained with them."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from stable_baselines3.common.noise import ActionNoise

from rlprune.agents.algorithms.actors import actor_layers
from rlprune.agents.algorithms.kinds import Algorithm
from rlprune.agents.settings import MOST_DECISIONS
from rlprune.errors import RLPruneError
from rlprune.policies.actions import ActionKind
from rlprune.utils.hardware import check_device
from rlprune.utils.settings import (
    AtMost,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Seed,
    Share,
    describe,
)

_SEEN_LATE = ("ent_coef", "vf_coef", "max_grad_norm")
"""What PPO itself looks at in its first update alone."""
Schedule = Callable[[float], float]
_Device = Annotated[str, AfterValidator(lambda device: device if device == "auto" else check_device(device))]
_Weight = Annotated[NonNegativeFloat, AtMost(1000)]
_Often = Annotated[PositiveInt, AtMost(2**16)]
_Pair = tuple[_Often, Literal["step", "episode"]]
_COMMON: dict[str, Any] = {
    "learning_rate": Annotated[NonNegativeFloat, AtMost(100)] | Schedule,
    "batch_size": Annotated[int, Field(ge=2), AtMost(2**20)],
    "gamma": Share,
    "use_sde": bool,
    "sde_sample_freq": Annotated[int, Field(ge=-1), AtMost(2**31 - 1)],
    "stats_window_size": Annotated[PositiveInt, AtMost(2**22)],
    "tensorboard_log": str | None,
    "verbose": Literal[0, 1, 2],
    "seed": Seed | None,
    "device": _Device | torch.device,
    "_init_setup_model": Literal[True],
}
_ON_POLICY: dict[str, Any] = {
    "n_steps": _Often,
    "n_epochs": Annotated[PositiveInt, AtMost(1000)],
    "gae_lambda": Share,
    "clip_range": Annotated[PositiveFloat, AtMost(1000)] | Schedule,
    "clip_range_vf": Annotated[PositiveFloat, AtMost(1000)] | Schedule | None,
    "normalize_advantage": bool,
    "ent_coef": _Weight,
    "vf_coef": _Weight,
    "max_grad_norm": PositiveFloat,
    "rollout_buffer_kwargs": dict[str, Any] | None,
    "target_kl": PositiveFloat | None,
    "rms_prop_eps": PositiveFloat,
    "use_rms_prop": bool,
    "cg_max_steps": Annotated[PositiveInt, AtMost(1000)],
    "cg_damping": NonNegativeFloat,
    "line_search_shrinking_factor": PositiveShare,
    "line_search_max_iter": Annotated[PositiveInt, AtMost(1000)],
    "n_critic_updates": Annotated[PositiveInt, AtMost(1000)],
    "sub_sampling_factor": Annotated[PositiveInt, AtMost(1000)],
}
_OFF_POLICY: dict[str, Any] = {
    "buffer_size": Annotated[PositiveInt, AtMost(MOST_DECISIONS)],
    "learning_starts": NonNegativeInt,
    "tau": PositiveShare,
    "train_freq": _Often | _Pair,
    "gradient_steps": Annotated[int, Field(ge=-1), AtMost(2**20)],
    "n_steps": Annotated[PositiveInt, AtMost(100)],
    "replay_buffer_class": None,
    "replay_buffer_kwargs": dict[str, Any] | None,
    "optimize_memory_usage": bool,
    "action_noise": ActionNoise | None,
    "target_update_interval": PositiveInt,
    "exploration_fraction": PositiveShare,
    "exploration_initial_eps": Share,
    "exploration_final_eps": Share,
    "max_grad_norm": PositiveFloat | None,
    "ent_coef": _Weight | Literal["auto"],
    "target_entropy": Literal["auto"] | float,
    "use_sde_at_warmup": bool,
    "policy_delay": Annotated[PositiveInt, AtMost(1000)],
    "target_policy_noise": _Weight,
    "target_noise_clip": _Weight,
    "top_quantiles_to_drop_per_net": NonNegativeInt,
}
_OWN: dict[tuple[str, str], Any] = {
    ("trpo", "target_kl"): PositiveFloat,
    ("dqn", "max_grad_norm"): PositiveFloat,
}
"""What the arguments may be, by their names; what is not here is for the algorithm itself to judge."""


def check_arguments(
    algorithm: Algorithm, given: dict[str, Any], n_envs: int, action: ActionKind, label: str = "arguments"
) -> None:
    """Make sure that an algorithm takes arguments, that training with them can end, and that its agent can be exported.

    Args:
        algorithm: the algorithm.
        given: by name.
        n_envs: decisions at once.
        action: what the agent is to choose.
        label: what messages call the arguments.

    Raises:
        RLPruneError: one of them is unknown, or cannot be; or the algorithm cannot choose such actions.
    """
    if not isinstance(more := given.get("policy_kwargs") or {}, dict):
        raise RLPruneError(f"{label} has policy_kwargs={more!r}; give an object, such as {{'ortho_init': false}}")
    if "net_arch" in more:
        raise RLPruneError(
            f"{label} has a net_arch; give the widths as hidden, because what a decision costs depends on them"
        )
    if not _all_finite(given):
        raise RLPruneError(f"{label} has a number that is not finite: {given}; give finite ones")
    _check_names(algorithm, given, more)
    for name, value in given.items():
        _check(algorithm, name, value)
    _check_size(algorithm, given, n_envs)
    _try(algorithm, given, action)


def _check_names(algorithm: Algorithm, given: dict[str, Any], more: dict[str, Any]) -> None:
    """Make sure that there are such arguments.

    Raises:
        RLPruneError: there are not.
    """
    name = algorithm.kind.__name__
    for kind, found, allowed in (("", given, algorithm.takes), ("'s policy", more, _of_policy(algorithm))):
        unknown = [key for key in found if key not in allowed]
        if unknown and allowed:
            raise RLPruneError(f"{name}{kind} has no argument {unknown[0]!r}; allowed: {', '.join(allowed)}")


def _of_policy(algorithm: Algorithm) -> list[str]:
    """Names of the arguments of its policy."""
    policy = getattr(algorithm.kind, "policy_aliases", {}).get("MlpPolicy")
    if policy is None:
        return []
    return [name for name in inspect.signature(policy).parameters if not name.endswith("_space")][1:]


def _check_size(algorithm: Algorithm, given: dict[str, Any], n_envs: int) -> None:
    """Make sure that what is kept in memory fits, and that the rollouts of several environments have a length.

    Raises:
        RLPruneError: it does not.
    """
    name = algorithm.kind.__name__
    kept = "train_freq" if algorithm.off_policy else "n_steps"
    value = given.get(kept, 1)
    if isinstance(value, tuple):
        if value[1] == "episode" and n_envs > 1:
            raise RLPruneError(f"{name} does not take {{'train_freq': {value}}} with n_envs={n_envs}; count in steps")
        value = value[0]
    if n_envs * value > MOST_DECISIONS:
        raise RLPruneError(
            f"{name} does not take {{'{kept}': {value}}}: with n_envs={n_envs} that is more than "
            f"{MOST_DECISIONS} decisions, all kept in memory; give fewer"
        )


def _all_finite(value: Any) -> bool:
    """Whether no number is NaN or infinite, in containers neither."""
    if isinstance(value, dict):
        return _all_finite(list(value.values()))
    if isinstance(value, list | tuple):
        return all(map(_all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _check(algorithm: Algorithm, name: str, value: Any) -> None:
    """Make sure that an argument is of its type and in its range.

    Raises:
        RLPruneError: it is not.
    """
    types = _COMMON | (_OFF_POLICY if algorithm.off_policy else _ON_POLICY)
    types |= {argument: hint for (owner, argument), hint in _OWN.items() if owner == algorithm.name}
    if name not in types:
        return
    hint = types[name]
    try:
        TypeAdapter(hint, config={"strict": True, "arbitrary_types_allowed": True}).validate_python(value)
    except ValidationError as error:
        reasons = [each.get("ctx", {}).get("error") for each in error.errors()]
        words = next((str(reason) for reason in reasons if reason is not None), f"give {describe(hint)}")
        verb = "cannot train with" if name in _SEEN_LATE and not algorithm.off_policy else "does not take"
        given = {name: value}
        raise RLPruneError(f"{algorithm.title} {verb} {given}: {words}") from error


def _try(algorithm: Algorithm, given: dict[str, Any], action: ActionKind) -> None:
    """Let the algorithm itself judge arguments, in a world of its own that costs nothing.

    Raises:
        RLPruneError: it does not take them, or what it learns cannot be exported.
    """
    name = algorithm.kind.__name__
    try:
        agent = _build(algorithm, given, action)
    except Exception as error:
        fitting = [kind for kind in get_args(ActionKind) if _takes_action(algorithm, kind)]
        if fitting and action not in fitting:
            raise RLPruneError(
                f"{name} cannot choose {action}, only {' or '.join(fitting)}; give such an action, or another algorithm"
            ) from error
        raise RLPruneError(f"{name} does not take {given}: {error}") from error
    actor_layers(agent)


def _takes_action(algorithm: Algorithm, action: ActionKind) -> bool:
    try:
        _build(algorithm, {}, action)
    except Exception:
        return False
    return True


def _build(algorithm: Algorithm, given: dict[str, Any], action: ActionKind) -> Any:
    """An agent in a small world."""
    small = {"batch_size": 2, "buffer_size": 2, "device": "cpu", "seed": None, "tensorboard_log": None}
    if not algorithm.off_policy:
        small["n_steps"] = 2
    kept = {key: value for key, value in small.items() if key in algorithm.takes}
    more = own_networks(algorithm) | (given.get("policy_kwargs") or {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build: Any = algorithm.kind
        return build("MlpPolicy", _Nothing(action), **copied(given) | kept | {"policy_kwargs": more})


def copied(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments whose dicts an algorithm may write into, as Stable-Baselines3's do."""
    return {name: dict(value) if isinstance(value, dict) else value for name, value in given.items()}


def own_networks(algorithm: Algorithm) -> dict[str, Any]:
    """What the networks of an algorithm have in place of its own defaults, so that they can be exported."""
    squashes = algorithm.off_policy and not algorithm.by_values
    return {"activation_fn": torch.nn.Tanh} if squashes else {}


class _Nothing(gym.Env[Any, Any]):
    """A world in which nothing happens."""

    def __init__(self, action: ActionKind) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space: spaces.Space[Any] = {
            "profiles": spaces.Discrete(2),
            "levels": spaces.MultiDiscrete([2, 2]),
            "ratios": spaces.Box(-1.0, 1.0, (1,), np.float32),
        }[action]
