"""Many images at once: the same environment for Stable-Baselines3 (`VecEnv`) and for Gymnasium (`VectorEnv`).

The network runs on all images of a step together. Environment i draws its images as the single environment with seed
`seed + i` does, so N of these equal N of those, step for step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlprune.data import ImageSet
from rlprune.elastic import ElasticCNN
from rlprune.envs.keep_ratio import first_information, information
from rlprune.envs.world import Episodes, Outcome, World
from rlprune.errors import RLPruneError

Observations = NDArray[np.float32]


class _Slots:
    """N running episodes of a world, each with its own generator of images; ended ones begin anew in the same step."""

    def __init__(self, world: World, n: int) -> None:
        if n < 1:
            raise RLPruneError(f"{n} environments were asked for; at least 1 is needed")
        self.world, self.n = world, n
        self.generators = [seeding.np_random(None)[0] for _ in range(n)]
        self.episodes = world.begin(torch.zeros(n, dtype=torch.int64))

    def reset(self, seeds: Sequence[int | None]) -> Observations:
        for i, seed in enumerate(seeds):
            if seed is not None:
                self.generators[i] = seeding.np_random(seed)[0]
        self.episodes = self._fresh(range(self.n))
        return self.world.observe(self.episodes)

    def step(self, actions: Any) -> tuple[Observations, Outcome, list[dict[str, Any]], Observations]:
        """Observations after resets, outcome, infos, and the last observations of the episodes before resets."""
        outcome = self.world.step(self.episodes, actions)
        infos = information(self.world, self.episodes, outcome)
        last = self.world.observe(self.episodes)
        ended = outcome.done.nonzero().flatten()
        self.episodes.replace(ended, self._fresh(ended.tolist()))
        return self.world.observe(self.episodes), outcome, infos, last

    def _fresh(self, slots: Sequence[int]) -> Episodes:
        drawn = [self.world.draw(self.generators[i]) for i in slots]
        images, penalties = zip(*drawn, strict=True) if drawn else ((), ())
        return self.world.begin(torch.tensor(images, dtype=torch.int64), torch.tensor(penalties, dtype=torch.float32))


class KeepRatioVecEnv(VecEnv):
    """The environment for Stable-Baselines3, N episodes at once.

    Args:
        world: images, network and rules; built from the arguments of `KeepRatioEnv`.
        n_envs: how many episodes run at once.
    """

    def __init__(self, world: World, n_envs: int = 256) -> None:
        self.world = world
        self._slots = _Slots(world, n_envs)
        self._actions: Any = None
        self.render_mode = None
        super().__init__(n_envs, world.observation_space, world.action_space)

    def reset(self) -> Observations:
        """Start all episodes anew; seeds given to `seed` before take effect now."""
        observations = self._slots.reset(self._seeds)
        self.reset_infos = first_information(self.world, self._slots.episodes)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of all environments."""
        self._actions = actions

    def step_wait(self) -> tuple[Observations, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Run them."""
        observations, outcome, infos, last = self._slots.step(self._actions)
        self.reset_infos = first_information(self.world, self._slots.episodes)
        for i in outcome.done.nonzero().flatten().tolist():
            infos[i] |= {"terminal_observation": last[i], "TimeLimit.truncated": False}
        return observations, outcome.rewards.numpy().copy(), outcome.done.numpy().copy(), infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute, once for every index: all environments share it."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute that all environments share."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """There are no single environments whose methods could be called."""
        raise NotImplementedError(f"all environments are one batch; there is no single one to call {method_name} on")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No environment is wrapped."""
        return [False for _ in self._get_indices(indices)]


class KeepRatioVectorEnv(VectorEnv[Observations, Any, Any]):
    """The environment for Gymnasium's `make_vec`, N episodes at once; ended ones reset in the same step.

    Args:
        num_envs: how many episodes run at once.
        network: the elastic network.
        data: images that did not train it.
        settings: the other arguments of `KeepRatioEnv`.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, network: ElasticCNN, data: ImageSet, **settings: Any) -> None:
        self.world = World(network, data, **settings)
        self.num_envs = num_envs
        self._slots = _Slots(self.world, num_envs)
        self.single_observation_space: gymnasium.Space[Any] = self.world.observation_space
        self.single_action_space: gymnasium.Space[Any] = self.world.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start all episodes anew; one seed means `seed + i` for environment i."""
        if options:
            raise RLPruneError(
                f"options={options}: the batched environment takes none; name an image to the single one"
            )
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed or [None] * self.num_envs
        return self._slots.reset(seeds), self._merged(first_information(self.world, self._slots.episodes))

    def step(
        self, actions: Any
    ) -> tuple[Observations, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Run the network on all images as the actions say."""
        observations, outcome, infos, last = self._slots.step(actions)
        done = outcome.done.numpy().copy()
        for i, first in enumerate(first_information(self.world, self._slots.episodes)):
            if done[i]:
                infos[i] = first | {"final_obs": last[i], "final_info": infos[i]}
        return observations, outcome.rewards.numpy().copy(), done, np.zeros_like(done), self._merged(infos)

    def _merged(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for i, info in enumerate(infos):
            merged = self._add_info(merged, info, i)
        return merged
