"""Many images at once: what all batched environments share, and Gymnasium's `VectorEnv`.

The network runs on all images of a step together. Environment i draws its images as the single environment with seed
`seed + i` does, so N of these equal N of those, step for step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.episodes import Episodes, Outcome
from rlprune.envs.screen import RENDERING, Frame, Screen, check_render_mode
from rlprune.envs.world import World, first_information, information
from rlprune.errors import RLPruneError
from rlprune.utils.finite import check_whole

Observations = NDArray[np.float32]


class Slots:
    """N running episodes of a world, each with its own generator of images; one that ends restarts in the same step."""

    def __init__(self, world: World, n: int, render_mode: str | None = None) -> None:
        check_whole(n_envs=n, most=2**20)
        if n < 1:
            raise RLPruneError(f"{n} environments were asked for; at least 1 is needed")
        self.world = world
        self.n = n
        self.generators = [seeding.np_random(None)[0] for _ in range(n)]
        self.episodes = world.begin(torch.zeros(n, dtype=torch.int64))
        self.screen = Screen(world, render_mode, n)

    def reset(self, seeds: Sequence[int | None]) -> Observations:
        """First observations of new episodes; a seed of None keeps a generator as it is."""
        for i, seed in enumerate(seeds):
            if seed is not None:
                self.generators[i] = seeding.np_random(seed)[0]
                self.screen.forget(i)
        self.episodes = self._fresh(range(self.n))
        self.screen.begin(self.episodes)
        self.screen.refresh()
        return self.world.observe(self.episodes)

    def step(self, actions: Any) -> tuple[Observations, Outcome, list[dict[str, Any]], Observations]:
        """Observations after restarts, outcome, infos, and the last observations of the episodes before restarts."""
        outcome = self.world.step(self.episodes, actions)
        infos = information(self.world, self.episodes, outcome)
        last = self.world.observe(self.episodes)
        self.screen.follow(self.episodes, outcome)
        ended = outcome.done.nonzero().flatten()
        self.episodes.replace(ended, self._fresh(ended.tolist()))
        self.screen.begin(self.episodes, ended.tolist())
        self.screen.refresh()
        return self.world.observe(self.episodes), outcome, infos, last

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on: generators, and the episodes that are under way."""
        return {"generators": [each.bit_generator.state for each in self.generators], "episodes": asdict(self.episodes)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        self.episodes = Episodes(**{name: value.clone() for name, value in state["episodes"].items()})
        self.screen.begin(self.episodes)

    def _fresh(self, slots: Sequence[int]) -> Episodes:
        drawn = [self.world.draw(self.generators[i]) for i in slots]
        images, penalties = zip(*drawn, strict=True) if drawn else ((), ())
        return self.world.begin(torch.tensor(images, dtype=torch.int64), torch.tensor(penalties, dtype=torch.float32))


class KeepRatioVectorEnv(VectorEnv[Observations, Any, Any]):
    """The environment for Gymnasium's `make_vec`, N episodes at once; one that ends restarts in the same step.

    Args:
        num_envs: how many episodes run at once.
        network: the elastic network.
        data: images that did not train it.
        render_mode: None, `rgb_array` (`render` returns a picture of each episode) or `human` (the first nine in a
            window).
        settings: the other arguments of `KeepRatioEnv`.
    """

    metadata = RENDERING | {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int,
        network: ElasticCNN,
        data: ImageSet,
        *,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        self.render_mode = check_render_mode(render_mode)
        self.world = World(network, data, **settings)
        self.num_envs = num_envs
        self._slots = Slots(self.world, num_envs, self.render_mode)
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

    def render(self) -> tuple[Frame, ...] | None:  # type: ignore[override]
        """A picture of each episode, uint8 (480, 640, 3), if the mode is `rgb_array`; `human` shows them in a window.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        return self._slots.screen.render()

    def close_extras(self, **_: Any) -> None:
        """Close the window, if there is one."""
        self._slots.screen.close()

    def _merged(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for i, info in enumerate(infos):
            merged = self._add_info(merged, info, i)
        return merged
