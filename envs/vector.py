"""Many images at once for Gymnasium."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlprune.envs.arguments import shown
from rlprune.envs.episodes import first_information
from rlprune.envs.making import DataLike, NetworkLike, make_world
from rlprune.envs.running.slots import Observations, Slots, Stepped
from rlprune.envs.screen import RENDERING, Frame, check_render_mode
from rlprune.errors import SettingsError


class KeepRatioVectorEnv(VectorEnv[Observations, Any, Any]):
    """The environment for Gymnasium's `make_vec`, N episodes at once.

    It does what `gymnasium.vector.SyncVectorEnv` does with N single ones, in every mode of restarting.

    Args:
        num_envs: how many episodes run at once.
        network: a folder with a network or a bundle, or the elastic network itself.
        data: images that did not train it, by name or themselves.
        autoreset_mode: whether an episode that ends begins anew in the same step, in the next one, or not by itself.
        max_episode_steps: after how many steps an episode is cut off; None or -1 for never.
        render_mode: None, `rgb_array` (`render` returns a picture of each episode) or `human` (the first nine in a
            window).
        settings: the other arguments of `KeepRatioEnv`.

    Raises:
        RLPruneError: an argument is of another kind than is allowed, or does not fit the others.
    """

    metadata = RENDERING | {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int,
        network: NetworkLike | None = None,
        data: DataLike | None = None,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        mode = _autoreset(autoreset_mode)
        self.render_mode = check_render_mode(render_mode)
        self.metadata = RENDERING | {"autoreset_mode": mode}
        self.world = make_world(network, data, **settings)
        self.num_envs = num_envs
        max_steps = None if max_episode_steps == -1 else max_episode_steps
        self._slots = Slots(self.world, num_envs, self.render_mode, mode, max_steps)
        self.single_observation_space: gymnasium.Space[Any] = self.world.observation_space
        self.single_action_space: gymnasium.Space[Any] = self.world.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    @property  # type: ignore[misc]  # which Gymnasium's own batches cannot set either
    def np_random(self) -> Any:
        """The generators of all episodes."""
        return self.call("np_random")

    @property
    def np_random_seed(self) -> Any:
        """Their seeds; -1 of those that are not known."""
        return self.call("np_random_seed")

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin episodes anew.

        Args:
            seed: one for all means `seed + i` for episode i; or a list of one each.
            options: `image` and `penalty` of all episodes, as in the single environment; and `reset_mask`, bool (n,),
                for those alone that are to begin anew.

        Raises:
            RLPruneError: there is no such image or penalty; or seeds or the mask are not as many.
        """
        if options is not None and not isinstance(options, dict):
            raise SettingsError(f"options={shown(options)}: give a dict with 'image', 'penalty' or 'reset_mask'")
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        rows = None if mask is None else self._rows(mask)
        observations = self._slots.reset(self._seeds(seed), [options] * self.num_envs, rows)
        infos = first_information(self.world, self._slots.episodes)
        if rows is not None:
            begun = set(rows.tolist())
            infos = [info if row in begun else {} for row, info in enumerate(infos)]
        return observations, self._merged(infos)

    def step(
        self, actions: Any
    ) -> tuple[Observations, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Run the network on all images as the actions say."""
        stepped = self._slots.step(actions)
        infos = stepped.infos
        if self._slots.autoreset == AutoresetMode.SAME_STEP:
            infos = self._with_final(stepped)
        return stepped.observations, stepped.rewards, stepped.terminated, stepped.truncated, self._merged(infos)

    def render(self) -> tuple[Frame, ...] | None:  # type: ignore[override]
        """A picture of each episode, uint8 (480, 640, 3), if the mode is `rgb_array`; `human` shows them in a window.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        return self._slots.screen.render()

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices make sense in each episode, bool (n, choices): all, but to accept before the first pass."""
        return self._slots.action_masks()

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every single episode, or read an attribute.

        Raises:
            SeatError: a single one has none of that name.
        """
        return tuple(self._slots.seats.call(name, range(self.num_envs), *args, **kwargs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of every single episode.

        Raises:
            SeatError: a single one has none of that name.
        """
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an own attribute of every single episode: a list or tuple of one each, or one for all.

        Raises:
            SeatError: all of them share it.
            SettingsError: the values are not as many.
        """
        values = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise SettingsError(f"values has {len(values)} entries; give one for each of {self.num_envs} environments")
        self._slots.seats.set(name, range(self.num_envs), values)

    def close_extras(self, **_: Any) -> None:
        """Close the window, if there is one."""
        slots = getattr(self, "_slots", None)  # Gymnasium 1.1 closes what was refused while it was made, too
        if slots is not None:
            slots.screen.close()

    def _seeds(self, seed: Any) -> list[int | None]:
        """A seed for every episode."""
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [seed + i for i in range(self.num_envs)]
        if not isinstance(seed, Sequence | np.ndarray) or isinstance(seed, str) or len(seed) != self.num_envs:
            raise SettingsError(
                f"seed={shown(seed)}: give a whole number, or a list of one for each of {self.num_envs} environments"
            )
        return list(seed)

    def _rows(self, mask: Any) -> NDArray[np.intp]:
        """The episodes that a mask says."""
        is_mask = isinstance(mask, np.ndarray) and mask.shape == (self.num_envs,) and mask.dtype == np.bool_
        if not is_mask or not mask.any():
            raise SettingsError(
                f"options['reset_mask']={shown(mask)}: give an array of {self.num_envs} bool, at least one of them True"
            )
        return np.flatnonzero(mask)

    def _with_final(self, stepped: Stepped) -> list[dict[str, Any]]:
        """The infos of what goes on; those of what has ended lie in `final_info`, and `final_obs` is beside it."""
        infos = list(stepped.infos)
        first = first_information(self.world, self._slots.episodes)
        for row in stepped.ended.tolist():
            infos[row] = first[row] | {"final_obs": stepped.last[row], "final_info": infos[row]}
        return infos

    def _merged(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for i, info in enumerate(infos):
            merged = self._add_info(merged, info, i)
        return merged


def _autoreset(mode: Any) -> AutoresetMode:
    """A way of restarting, by its name too."""
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        allowed = ", ".join(each.value for each in AutoresetMode)
        raise SettingsError(f"autoreset_mode={shown(mode)}: give one of {allowed}") from error
