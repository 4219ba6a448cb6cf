"""Many images at once: the state that all batched environments share.

The network runs on all images of a step together. Episode i draws its images as the single environment with seed
`seed + i` does, so N of these equal N of those, step for step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from gymnasium.utils import seeding
from numpy.typing import NDArray

from rlprune.envs.episodes import Episodes, Outcome
from rlprune.envs.world import World, information
from rlprune.errors import RLPruneError
from rlprune.utils.finite import check_whole

Observations = NDArray[np.float32]


class Slots:
    """N running episodes of a world, each with its own generator of images; one that ends restarts in the same step."""

    def __init__(self, world: World, n: int) -> None:
        check_whole(n_envs=n, most=2**20)
        if n < 1:
            raise RLPruneError(f"{n} environments were asked for; at least 1 is needed")
        self.world = world
        self.n = n
        self.generators = [seeding.np_random(None)[0] for _ in range(n)]
        self.episodes = world.begin(torch.zeros(n, dtype=torch.int64))

    def reset(self, seeds: Sequence[int | None]) -> Observations:
        """First observations of new episodes; a seed of None keeps a generator as it is."""
        for i, seed in enumerate(seeds):
            if seed is not None:
                self.generators[i] = seeding.np_random(seed)[0]
        self.episodes = self._fresh(range(self.n))
        return self.world.observe(self.episodes)

    def step(self, actions: Any) -> tuple[Observations, Outcome, list[dict[str, Any]], Observations]:
        """Observations after restarts, outcome, infos, and the last observations of the episodes before restarts."""
        outcome = self.world.step(self.episodes, actions)
        infos = information(self.world, self.episodes, outcome)
        last = self.world.observe(self.episodes)
        ended = outcome.done.nonzero().flatten()
        self.episodes.replace(ended, self._fresh(ended.tolist()))
        return self.world.observe(self.episodes), outcome, infos, last

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on: generators, and the episodes that are under way."""
        return {"generators": [each.bit_generator.state for each in self.generators], "episodes": asdict(self.episodes)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        self.episodes = Episodes(**{name: value.clone() for name, value in state["episodes"].items()})

    def _fresh(self, slots: Sequence[int]) -> Episodes:
        drawn = [self.world.draw(self.generators[i]) for i in slots]
        images, penalties = zip(*drawn, strict=True) if drawn else ((), ())
        return self.world.begin(torch.tensor(images, dtype=torch.int64), torch.tensor(penalties, dtype=torch.float32))
