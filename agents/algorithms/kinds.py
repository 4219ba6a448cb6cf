"""Learning algorithms by name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlprune.errors import RLPruneError
from rlprune.utils.imports import find, require

_OURS = ("stable_baselines3", None)
_CONTRIB = ("sb3_contrib", "contrib")
_HOMES: dict[str, tuple[str, str, str | None]] = {
    "ppo": ("PPO", *_OURS),
    "a2c": ("A2C", *_OURS),
    "trpo": ("TRPO", *_CONTRIB),
    "maskable_ppo": ("MaskablePPO", *_CONTRIB),
    "dqn": ("DQN", *_OURS),
    "qrdqn": ("QRDQN", *_CONTRIB),
    "sac": ("SAC", *_OURS),
    "tqc": ("TQC", *_CONTRIB),
    "td3": ("TD3", *_OURS),
    "ddpg": ("DDPG", *_OURS),
}
"""Class, package, and the extra that brings it."""
NAMES = tuple(_HOMES)
"""Algorithms that have a name here."""


@dataclass(frozen=True)
class Algorithm:
    """A learning algorithm.

    Attributes:
        kind: its class.
        name: one of `NAMES`, or `module:Class`.
    """

    kind: type[BaseAlgorithm]
    name: str

    @property
    def is_ppo(self) -> bool:
        """Whether it is the default."""
        return self.name == "ppo"

    @property
    def off_policy(self) -> bool:
        """Whether it learns from a replay buffer."""
        return issubclass(self.kind, OffPolicyAlgorithm)

    @property
    def by_values(self) -> bool:
        """Whether it values actions and explores by chance, as DQN does."""
        return "exploration_fraction" in self.takes

    @property
    def masked(self) -> bool:
        """Whether it is told which actions make no sense."""
        return any(each.__module__ == "sb3_contrib.ppo_mask.ppo_mask" for each in self.kind.__mro__)

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of its arguments, but for policy and environment."""
        return tuple(name for name in dict.fromkeys(_parameters(self.kind)) if name not in ("policy", "env"))

    @property
    def title(self) -> str:
        """What messages call it."""
        of_sb3 = self.kind.__module__.partition(".")[0] in (_OURS[0], _CONTRIB[0])
        return f"Stable-Baselines3's {self.kind.__name__}" if of_sb3 else self.kind.__name__


def find_algorithm(given: str | type[BaseAlgorithm]) -> Algorithm:
    """The algorithm that a name or a class stands for.

    Args:
        given: one of `NAMES`, however it is written (`MaskablePPO` will do); `package.module:Class`; or a class of
            Stable-Baselines3, or one derived from it.

    Raises:
        MissingExtraError: it is one of sb3-contrib, which is not installed.
        RLPruneError: there is no such algorithm, or it is of another kind.
    """
    if isinstance(given, str):
        names = {_bare(name): name for name in NAMES}
        if (name := names.get(_bare(given))) is not None:
            kind, package, extra = _HOMES[name]
            return Algorithm(getattr(require(package, extra), kind), name)
        if ":" in given:
            return _of_class(find(given, RLPruneError), given)
    return _of_class(given, given)


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _of_class(kind: Any, given: Any) -> Algorithm:
    """The algorithm of a class.

    Raises:
        RLPruneError: it is no class, or no algorithm whose training can be gone on with.
    """
    learns = (OnPolicyAlgorithm, OffPolicyAlgorithm)
    if not isinstance(kind, type) or not issubclass(kind, learns) or kind in learns:
        shown = given.__name__ if isinstance(given, type) else given
        raise RLPruneError(
            f"algorithm is {shown!r}; give one of {', '.join(NAMES)}, or a class of Stable-Baselines3 that learns from "
            "rollouts or a replay buffer (on the command line package.module:Class)"
        )
    learnt: type[BaseAlgorithm] = kind
    for name, (title, package, _) in _HOMES.items():
        if kind is getattr(sys.modules.get(package), title, None):
            return Algorithm(learnt, name)
    return Algorithm(learnt, f"{kind.__module__}:{kind.__qualname__}")


def _parameters(kind: type) -> Iterator[str]:
    """Names of a constructor's parameters, and of those that it hands on to the class above."""
    for each in kind.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = list(inspect.signature(each).parameters.values())
        yield from (part.name for part in parameters if part.kind not in (part.VAR_POSITIONAL, part.VAR_KEYWORD))
        if not any(part.kind is part.VAR_KEYWORD for part in parameters):
            break
