"""Many images at once for Stable-Baselines3."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlprune.envs.slots import Observations, Slots
from rlprune.envs.world import World, first_information


class KeepRatioVecEnv(VecEnv):
    """The environment for Stable-Baselines3, N episodes at once.

    Args:
        world: images, network and rules; built from the arguments of `KeepRatioEnv`.
        n_envs: how many episodes run at once.
    """

    def __init__(self, world: World, n_envs: int = 256) -> None:
        self.world = world
        self._slots = Slots(world, n_envs)
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

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on."""
        return self._slots.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, in place of a reset."""
        self._slots.restore(state)
        self.reset_infos = first_information(self.world, self._slots.episodes)

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
