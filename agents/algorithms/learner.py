"""An algorithm with its arguments: checked, made into an agent, and written down."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from rlprune.agents.algorithms.arguments import check_arguments, copied, own_networks
from rlprune.agents.algorithms.kinds import Algorithm, find_algorithm
from rlprune.agents.algorithms.named import with_objects
from rlprune.agents.algorithms.replay import read_replay_buffer
from rlprune.agents.settings import PolicySettings
from rlprune.errors import RLPruneError

_MOST_KEPT = 100_000
"""Decisions in a replay buffer, unless an argument says otherwise."""
_MOST_BYTES = 2**30
"""Of the same."""
_WITH_ACTORS = ("ppo", "a2c", "trpo", "maskable_ppo")
"""Algorithms with an actor that draws by its outputs, so that a cascade can be written into it."""
_USED_BY = {"n_epochs": ("n_epochs", "gradient_steps"), "batch_size": ("batch_size",), "entropy": ("ent_coef",)}
"""Settings that not every algorithm has a use for, and the arguments that they become."""


@dataclass(frozen=True)
class Learner:
    """An algorithm, and the arguments that go before what the settings say.

    Attributes:
        algorithm: the algorithm.
        arguments: by name.
        label: what messages call the arguments.
    """

    algorithm: Algorithm
    arguments: dict[str, Any]
    label: str = "arguments"

    @classmethod
    def of(
        cls,
        algorithm: str | type[BaseAlgorithm] = "ppo",
        arguments: dict[str, Any] | None = None,
        ppo: dict[str, Any] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
    ) -> Learner:
        """What the arguments of `rlprune.agents.train_policy` with these names ask for.

        Raises:
            MissingExtraError: the algorithm is one of sb3-contrib, which is not installed.
            RLPruneError: there is no such algorithm, or one of the others excludes another.
        """
        found = find_algorithm(algorithm)
        if ppo and not found.is_ppo:
            raise RLPruneError(f"ppo={ppo} goes with algorithm='ppo'; give arguments= with algorithm={found.name!r}")
        if ppo and arguments:
            raise RLPruneError("ppo and arguments are the same for algorithm='ppo'; give only one")
        label, given = ("ppo", ppo) if ppo else ("arguments", arguments or {})
        if not isinstance(given, dict):
            raise RLPruneError(f"{label} is {given!r}; give arguments by name, in a dict")
        if policy_kwargs is not None:
            if "policy_kwargs" in given:
                raise RLPruneError(f"policy_kwargs is given twice, in {label} and beside them; give only one")
            given = given | {"policy_kwargs": policy_kwargs}
        return cls(found, with_objects(given), label)

    def check(self, settings: PolicySettings) -> None:
        """Make sure that the algorithm can learn under settings, and what it learns be exported.

        Raises:
            RLPruneError: it cannot.
        """
        name = self.algorithm.kind.__name__
        check_arguments(self.algorithm, self.arguments, settings.n_envs, settings.action, self.label)
        starts = self.arguments.get("learning_starts", 0)
        if starts >= settings.total_steps:
            raise RLPruneError(
                f"{name} does not take {{'learning_starts': {starts}}} with total_steps={settings.total_steps}: "
                "nothing would be learnt; give fewer"
            )
        if self._unmasks(settings) and not settings.hidden:
            raise RLPruneError(
                f"hidden={settings.hidden}: {name} with profiles and several passes needs a hidden layer"
            )

    def settled(
        self, settings: PolicySettings, before: Mapping[str, Any] | None, *, own_observation: bool
    ) -> PolicySettings:
        """Settings that say what the agent begins as, cascade or random.

        Args:
            settings: of the run.
            before: what the run was begun with, if it is gone on with; then "auto" is what it began as.
            own_observation: it has an observation of the user's own.

        Raises:
            RLPruneError: a cascade is asked for, and cannot be.
        """
        refused = self._cascade_refused(settings, own_observation=own_observation)
        if settings.begin == "cascade" and refused is not None:
            raise RLPruneError(f"begin='cascade': {refused}; give begin='random'")
        if settings.begin != "auto":
            return settings
        possible = refused is None if before is None else before.get("begin") == "cascade"
        return replace(settings, begin="cascade" if possible else "random")

    def _cascade_refused(self, settings: PolicySettings, *, own_observation: bool) -> str | None:
        """Why no agent can begin as a cascade; None if one can."""
        if refused := settings.cascade_refused():
            return refused
        activation = (self.arguments.get("policy_kwargs") or {}).get("activation_fn", nn.Tanh)
        if own_observation:
            return "a cascade reads the default observation, not one of your own"
        if self.algorithm.name not in _WITH_ACTORS:
            return f"a cascade can be written into the actors of {', '.join(_WITH_ACTORS)} alone"
        if activation is not nn.Tanh:
            return f"a cascade needs Tanh between the layers, not {activation.__name__}"
        return None

    def unused(self, settings: PolicySettings) -> list[str]:
        """Settings that are not the defaults, and that the algorithm has no use for."""
        defaults = {field.name: field.default for field in fields(PolicySettings)}  # type: ignore[arg-type]
        return [
            f"{name}={getattr(settings, name)}"
            for name, become in _USED_BY.items()
            if getattr(settings, name) != defaults[name] and not self._takes_any(become)
        ]

    def _takes_any(self, names: tuple[str, ...]) -> bool:
        takes = set(self.algorithm.takes) - ({"ent_coef"} if self.algorithm.off_policy else set())
        return not takes.isdisjoint(names)

    @property
    def entropy_falls(self) -> bool:
        """Whether a bonus for undecided policies is part of what it learns from, and no argument fixes it."""
        return self._takes_any(("ent_coef",)) and "ent_coef" not in self.arguments

    def described(self) -> dict[str, Any]:
        """The algorithm and its arguments as notes hold them."""
        shown = re.sub(r" at 0x[0-9a-f]+", "", repr(self.arguments))  # what differs from process to process
        return {"ppo": shown} if self.algorithm.is_ppo else {"algorithm": self.algorithm.name, "arguments": shown}

    def sizes(self, n_inputs: int, n_outputs: int, settings: PolicySettings) -> tuple[int, ...]:
        """Widths of the network that is deployed, from the observation to the outputs."""
        more = self._unmasks(settings)
        sizes = (n_inputs, *(width + more for width in settings.hidden), n_outputs)
        return (*sizes, n_outputs) if own_networks(self.algorithm) else sizes

    def _unmasks(self, settings: PolicySettings) -> bool:
        """Whether the deployed network has to make up for masks."""
        return self.algorithm.masked and settings.action == "profiles" and settings.max_passes > 1

    def make(self, env: VecEnv, settings: PolicySettings) -> BaseAlgorithm:
        """A new agent.

        Raises:
            RLPruneError: the algorithm does not take the arguments.
        """
        given = dict(self._from_settings(env, settings)) | copied(self.arguments)
        takes = self.algorithm.takes
        arguments = {name: value for name, value in given.items() if name in takes or name in self.arguments}
        networks = {"net_arch": list(settings.hidden)} | own_networks(self.algorithm)
        arguments["policy_kwargs"] = networks | (self.arguments.get("policy_kwargs") or {})
        build: Any = self.algorithm.kind
        try:
            agent: BaseAlgorithm = build("MlpPolicy", env, **arguments)
        except (TypeError, ValueError, AssertionError) as error:
            shown = self.arguments or settings
            raise RLPruneError(f"{self.algorithm.title} does not take {shown}: {error}") from error
        _check_noise(getattr(agent, "action_noise", None), env)
        return agent

    def _from_settings(self, env: VecEnv, settings: PolicySettings) -> Iterator[tuple[str, Any]]:
        """What settings say, by the names of the algorithms' arguments."""
        rollout = settings.n_envs * settings.n_steps
        yield "learning_rate", lambda left: settings.learning_rate * max(left, 0.0)
        yield "gamma", 1.0  # episodes have one to three steps; the reward is their plain sum
        yield "batch_size", settings.batch_size
        yield "stats_window_size", max(100, rollout)
        yield "seed", settings.seed
        yield "device", "cpu"
        if not self.algorithm.off_policy:
            yield "n_steps", settings.n_steps
            yield "n_epochs", settings.n_epochs
            yield "ent_coef", settings.entropy
            return
        fitting = _MOST_BYTES // (
            8 * int(np.prod(env.observation_space.shape or (1,)))
        )  # what is seen before and after
        yield "buffer_size", max(rollout, min(settings.total_steps, _MOST_KEPT, fitting))
        yield "learning_starts", min(rollout, settings.total_steps) // 2
        yield "train_freq", settings.n_steps
        yield "gradient_steps", max(1, rollout * settings.n_epochs // settings.batch_size)
        if self.algorithm.by_values:
            yield "target_update_interval", rollout
            yield "exploration_fraction", 0.5
        if "target_policy_noise" in self.algorithm.takes or self.algorithm.name == "ddpg":
            n = int(np.prod(env.action_space.shape or (1,)))
            yield "action_noise", NormalActionNoise(np.zeros(n), np.full(n, 0.3))  # they explore by nothing else

    def load(self, checkpoint: Path, env: VecEnv) -> BaseAlgorithm:
        """The agent of a checkpoint, with its replay buffer if it learns from one.

        Raises:
            Exception: whatever unpickling a damaged file raises.
        """
        device = self.arguments.get("device", "cpu")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`n_steps=\d+` is ignored")  # the buffer that it has is the right one
            agent = self.algorithm.kind.load(checkpoint, env=env, device=device, force_reset=False)
        read_replay_buffer(agent, checkpoint)
        return agent


def _check_noise(noise: ActionNoise | None, env: VecEnv) -> None:
    """Make sure that noise has a number for each entry of an action; no generator is the further for it.

    Raises:
        RLPruneError: it has not.
    """
    if noise is None:
        return
    state = np.random.get_state()
    shape = np.shape(copy.deepcopy(noise)())
    np.random.set_state(state)
    if shape != env.action_space.shape:
        raise RLPruneError(f"action_noise is of shape {shape}; actions have shape {env.action_space.shape}, give that")
