"""Many images at once for Stable-Baselines3."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlprune.envs.episodes import first_information
from rlprune.envs.running.slots import Observations, Slots
from rlprune.envs.screen import RENDERING, Frame, check_render_mode
from rlprune.envs.world import World
from rlprune.errors import SettingsError


class KeepRatioVecEnv(VecEnv):
    """The environment for Stable-Baselines3, N episodes at once.

    It does what `DummyVecEnv` does with N single ones.

    Args:
        world: images, network and rules; built from the arguments of `KeepRatioEnv` by `rlprune.envs.make_world`.
        n_envs: how many episodes run at once.
        render_mode: None, `rgb_array` (`render` returns the first nine episodes in one picture) or `human` (a window
            shows them).

    Raises:
        RLPruneError: `n_envs` is below 1, or there is no such mode.
    """

    def __init__(self, world: World, n_envs: int = 256, render_mode: str | None = None) -> None:
        self.world = world
        self.render_mode = check_render_mode(render_mode)
        self._slots = Slots(world, n_envs, self.render_mode)
        self._actions: Any = None
        super().__init__(n_envs, world.observation_space, world.action_space)
        self.metadata = dict(RENDERING)

    def reset(self) -> Observations:
        """Start all episodes anew; what was given to `seed` and `set_options` before takes effect now."""
        seeds, options = self._seeds, self._options
        self._reset_seeds()
        self._reset_options()
        if len(options) != self.num_envs:
            raise SettingsError(f"{len(options)} options were set; give one dict for each of {self.num_envs}, or one")
        observations = self._slots.reset(seeds, options)
        self.reset_infos = first_information(self.world, self._slots.episodes)
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of all environments."""
        self._actions = actions

    def step_wait(self) -> tuple[Observations, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Run them."""
        stepped = self._slots.step(self._actions)
        self.reset_infos = first_information(self.world, self._slots.episodes)
        for info in stepped.infos:
            info["TimeLimit.truncated"] = False
        for row in stepped.ended.tolist():
            stepped.infos[row]["terminal_observation"] = stepped.last[row]
        return stepped.observations, stepped.rewards, stepped.terminated, stepped.infos

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on."""
        return self._slots.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, in place of a reset."""
        self._slots.restore(state)
        self.reset_infos = first_information(self.world, self._slots.episodes)

    def get_images(self) -> tuple[Frame, ...]:
        """A picture of each episode, uint8 (480, 640, 3).

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        return self._slots.screen.frames()

    def render(self, mode: str | None = None) -> Frame | None:
        """The first nine episodes in one picture, uint8 (height, width, 3); `human` shows it in a window.

        Args:
            mode: the environment's if None; `human` also works where that is `rgb_array`.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        wanted = mode or self.render_mode
        if self.render_mode is None or wanted not in ("human", self.render_mode):
            return super().render(mode)  # which says why nothing is drawn
        if wanted == "rgb_array":
            return self._slots.screen.tiled()
        self._slots.screen.show()
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        self._slots.screen.close()

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices make sense in each episode, bool (n, choices): all, but to accept before the first pass."""
        return self._slots.action_masks()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of single episodes.

        Raises:
            SeatError: a single one has none of that name.
        """
        return self._slots.seats.get(attr_name, self._get_indices(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an own attribute of single episodes.

        Raises:
            SeatError: all of them share it.
        """
        rows = list(self._get_indices(indices))
        self._slots.seats.set(attr_name, rows, [value] * len(rows))

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of single episodes.

        Raises:
            SeatError: a single one has none of that name.
        """
        return self._slots.seats.call(method_name, self._get_indices(indices), *args, **kwargs)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No environment is wrapped."""
        return [False for _ in self._get_indices(indices)]
