"""Many images at once: the state that all batched environments share.

The network runs on all images of a step together. Episode i draws its images as the single environment with seed
`seed + i` does, so N of these equal N of those, step for step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor

from rlprune.envs.episodes import Episodes, Outcome, first_information, information
from rlprune.envs.running.seats import Seats
from rlprune.envs.screen import Screen
from rlprune.envs.world import World
from rlprune.errors import RLPruneError
from rlprune.utils.finite import check_whole

Observations = NDArray[np.float32]
Options = Mapping[str, Any] | None


@dataclass(frozen=True, eq=False)
class Stepped:
    """What a step gave of n episodes.

    Attributes:
        observations: after restarts, float32 (n, D).
        rewards: float32 (n,); 0 where an episode began anew instead.
        terminated: bool (n,).
        truncated: bool (n,).
        infos: of the step; of the beginning where an episode began anew instead.
        last: observations before restarts, float32 (n, D).
    """

    observations: Observations
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: list[dict[str, Any]]
    last: Observations

    @property
    def ended(self) -> NDArray[np.intp]:
        """Which episodes are over."""
        return np.flatnonzero(self.terminated | self.truncated)


class Slots:
    """N running episodes of a world, each with its own generator of images.

    Attributes:
        episodes: their state.
        generators: what each draws its images from.
        seeds: of the generators; -1 of one that was given another state.
        screen: what shows them.
        seats: the episodes one by one.

    Args:
        world: images, network and rules.
        n: how many.
        render_mode: as `rlprune.envs.screen.check_render_mode` allows.
        autoreset: whether an episode that ends begins anew in the same step, in the next one, or when it is told to.
        max_steps: after how many steps an episode is cut off; None for never.

    Raises:
        RLPruneError: `n` or `max_steps` is below 1.
    """

    def __init__(
        self,
        world: World,
        n: int,
        render_mode: str | None = None,
        autoreset: AutoresetMode = AutoresetMode.SAME_STEP,
        max_steps: int | None = None,
    ) -> None:
        check_whole(n_envs=n, most=2**20)
        if n < 1:
            raise RLPruneError(f"{n} environments were asked for; at least 1 is needed")
        if max_steps is not None:
            check_whole(max_episode_steps=max_steps, least=1)
        self.world = world
        self.n = n
        self.autoreset = autoreset
        self.max_steps = max_steps
        drawn = [seeding.np_random(None) for _ in range(n)]
        self.generators = [generator for generator, _ in drawn]
        self.seeds = [seed for _, seed in drawn]
        self.episodes = world.begin(torch.zeros(n, dtype=torch.int64))
        self.screen = Screen(world, render_mode, n)
        self.seats = Seats(self)
        self._running = np.zeros(n, bool)
        self._begun = np.zeros(n, bool)

    def reset(
        self, seeds: Sequence[int | None], options: Sequence[Options] = (), rows: NDArray[np.intp] | None = None
    ) -> Observations:
        """Begin new episodes.

        Args:
            seeds: one for each of the n; of None a generator stays as it is.
            options: `image` and `penalty` for each of the n, or none for all.
            rows: which of them begin anew; all if None.

        Returns:
            Observations of all n, float32 (n, D).

        Raises:
            RLPruneError: there is no such image, or no such penalty.
        """
        chosen = list(range(self.n)) if rows is None else rows.tolist()
        for row in chosen if any(options) else ():
            self.world.check_options(options[row])
        before = [(self.generators[row], self.seeds[row]) for row in chosen]
        try:
            for row in chosen:
                if seeds[row] is not None:
                    self.generators[row], self.seeds[row] = seeding.np_random(seeds[row])
            fresh = self._fresh(chosen, options)
        except Exception:
            for row, (generator, seed) in zip(chosen, before, strict=True):
                self.generators[row], self.seeds[row] = generator, seed
            raise
        for row in chosen:
            if seeds[row] is not None:
                self.screen.forget(row)
        self._begin(chosen, fresh)
        self.screen.refresh()
        return self.world.observe(self.episodes)

    def step(self, actions: Any) -> Stepped:
        """Make a step in every episode; actions of those that begin anew instead are not looked at.

        Raises:
            ResetNeeded: an episode has not begun, or has ended and is to be told to begin anew.
            LevelsError: actions of another type or shape, or outside the action space.
        """
        self._check_begun()
        rows = np.flatnonzero(self._running)
        waiting = np.flatnonzero(~self._running).tolist()
        outcome, infos = self._run(rows, actions)
        last = self.world.observe(self.episodes)
        self.screen.follow(self.episodes, outcome)
        truncated = self._cut_off(outcome) & self._running
        terminated = outcome.done.numpy().copy()
        over = np.flatnonzero(terminated | truncated).tolist()
        self._running[over] = False
        anew = over if self.autoreset == AutoresetMode.SAME_STEP else waiting
        if anew:
            self._begin(anew, self._fresh(anew))
        if waiting:
            first = first_information(self.world, self.episodes)
            infos = [first[row] if row in set(waiting) else infos[row] for row in range(self.n)]
        self.screen.refresh()
        observations = self.world.observe(self.episodes) if anew else last.copy()
        return Stepped(observations, outcome.rewards.numpy().copy(), terminated, truncated, infos, last)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices make sense in each episode, bool (n, choices); see `rlprune.policies.actions.Actions.masks`."""
        return self.world.actions.masks(self.episodes.passes).numpy()

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on: generators, and the episodes that are under way."""
        return {"generators": [each.bit_generator.state for each in self.generators], "episodes": asdict(self.episodes)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        self.seeds = [-1] * self.n
        self.episodes = Episodes(**{name: value.clone() for name, value in state["episodes"].items()})
        self._running[:] = self._begun[:] = True
        self.screen.begin(self.episodes)

    def _check_begun(self) -> None:
        if not self._begun.all():
            raise ResetNeeded("call reset() before step()")
        if self.autoreset == AutoresetMode.DISABLED and not self._running.all():
            over = ", ".join(map(str, np.flatnonzero(~self._running)[:10]))
            raise ResetNeeded(
                f"episodes have ended ({over}); begin them anew with "
                "reset(options={'reset_mask': terminated | truncated})"
            )

    def _run(self, rows: NDArray[np.intp], actions: Any) -> tuple[Outcome, list[dict[str, Any]]]:
        """Run the episodes of some rows; outcome and infos of all n, with nothing in the others."""
        if len(rows) == self.n:
            outcome = self.world.step(self.episodes, actions)
            return outcome, information(self.world, self.episodes, outcome)
        given = np.asarray(actions)
        if given.shape[:1] != (self.n,):
            self.world.actions.read(given, self.n)  # which says what is wrong
        here = torch.from_numpy(rows)
        part = self.episodes.take(here)
        infos: list[dict[str, Any]] = [{} for _ in range(self.n)]
        some = self.world.step(part, given[rows])
        for row, info in zip(rows.tolist(), information(self.world, part, some), strict=True):
            infos[row] = info
        self.episodes.replace(here, part)
        return Outcome(*(self._spread(getattr(some, field.name), here) for field in fields(Outcome))), infos

    def _spread(self, values: Tensor, rows: Tensor) -> Tensor:
        """Values of some rows among zeros for the others."""
        spread = values.new_zeros((self.n, *values.shape[1:]))
        spread[rows] = values
        return spread

    def _cut_off(self, outcome: Outcome) -> NDArray[np.bool_]:
        """Which episodes have had all their steps: passes, and the one that accepts."""
        if self.max_steps is None:
            return np.zeros(self.n, bool)
        accepted = (outcome.levels < 0).all(1)
        cut_off: NDArray[np.bool_] = (outcome.passes + accepted >= self.max_steps).numpy()
        return cut_off

    def _begin(self, rows: Sequence[int], fresh: Episodes) -> None:
        """Put fresh episodes into some rows."""
        self.episodes.replace(torch.tensor(rows, dtype=torch.int64), fresh)
        self._running[rows] = self._begun[rows] = True
        self.screen.begin(self.episodes, rows)

    def _fresh(self, rows: Sequence[int], options: Sequence[Options] = ()) -> Episodes:
        """New episodes for some rows, with what the options of each say."""
        drawn = [self.world.draw(self.generators[row]) for row in rows]
        if any(options):
            for i, row in enumerate(rows):
                if options[row]:
                    image, penalty = drawn[i]
                    drawn[i] = self.world.check_start({"image": image, "penalty": penalty, **(options[row] or {})})
        images, penalties = zip(*drawn, strict=True) if drawn else ((), ())
        return self.world.begin(torch.tensor(images, dtype=torch.int64), torch.tensor(penalties, dtype=torch.float32))
