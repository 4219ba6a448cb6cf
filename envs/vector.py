"""Many images at once for Gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlprune.envs.making import DataLike, NetworkLike, make_world
from rlprune.envs.slots import Observations, Slots
from rlprune.envs.world import first_information
from rlprune.errors import RLPruneError


class KeepRatioVectorEnv(VectorEnv[Observations, Any, Any]):
    """The environment for Gymnasium's `make_vec`, N episodes at once; one that ends restarts in the same step.

    Args:
        num_envs: how many episodes run at once.
        network: a folder with a network or a bundle, or the elastic network itself.
        data: images that did not train it, by name or themselves.
        max_episode_steps: after how many steps an episode is cut off; None or -1 for never.
        settings: the other arguments of `KeepRatioEnv`.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        network: NetworkLike,
        data: DataLike,
        *,
        max_episode_steps: int | None = None,
        **settings: Any,
    ) -> None:
        self.world = make_world(network, data, **settings)
        self.num_envs = num_envs
        self._slots = Slots(self.world, num_envs)
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
