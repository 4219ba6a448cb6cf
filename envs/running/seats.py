"""One episode of a batch, as if it were an environment of its own: what clients ask of single ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlprune.envs.screen import RENDERING, Frame, Screen
from rlprune.errors import RLPruneError


class SeatError(RLPruneError, AttributeError):
    """A single episode of a batch has no such attribute, or it belongs to all of them."""


class Batch(Protocol):
    """What single episodes need of their batch: `rlprune.envs.running.slots.Slots`."""

    n: int
    world: Any
    generators: list[np.random.Generator]
    seeds: list[int]
    screen: Screen

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices make sense in each episode, bool (n, choices)."""


class Seat:
    """What can be read and called of one episode in a batch; its own attributes may be added.

    Args:
        slots: the batch.
        row: which of its episodes.
    """

    metadata = RENDERING

    def __init__(self, slots: Batch, row: int) -> None:
        self._slots = slots
        self._row = row

    @property
    def unwrapped(self) -> Seat:
        """Itself."""
        return self

    @property
    def world(self) -> Any:
        """Images, network and rules, which all share."""
        return self._slots.world

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        """Of this episode alone."""
        space: gymnasium.Space[Any] = self.world.observation_space
        return space

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """Of this episode alone."""
        space: gymnasium.Space[Any] = self.world.action_space
        return space

    @property
    def render_mode(self) -> str | None:
        """How all are shown."""
        return self._slots.screen.mode

    @property
    def np_random(self) -> np.random.Generator:
        """What draws its images."""
        return self._slots.generators[self._row]

    @property
    def np_random_seed(self) -> int:
        """The seed of that; -1 if it is not known."""
        return self._slots.seeds[self._row]

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices make sense, bool (choices,)."""
        return self._slots.action_masks()[self._row]

    def render(self) -> Frame | None:
        """Its picture, if the mode is `rgb_array`."""
        frames = self._slots.screen.render()
        return None if frames is None else frames[self._row]

    def get_wrapper_attr(self, name: str) -> Any:
        """An attribute.

        Raises:
            SeatError: there is none of that name.
        """
        return getattr(self, name)

    def __getattr__(self, name: str) -> Any:
        raise SeatError(
            f"there is no {name!r} here: all episodes run as one batch; of a single one there are "
            f"{', '.join(_SHARED)}, and what set_attr has set; for more make single environments (SyncVectorEnv, "
            "DummyVecEnv)"
        )


_SHARED = tuple(name for name in vars(Seat) if not name.startswith("_") and name != "get_wrapper_attr")
"""What all seats have."""


class Seats:
    """The episodes of a batch, one by one.

    Args:
        slots: the batch.
    """

    def __init__(self, slots: Batch) -> None:
        self._slots = slots
        self._seats: dict[int, Seat] = {}

    def get(self, name: str, rows: Iterable[int]) -> list[Any]:
        """An attribute of some episodes.

        Raises:
            SeatError: there is none of that name.
        """
        return [getattr(self._seat(row), name) for row in rows]

    def set(self, name: str, rows: Iterable[int], values: Iterable[Any]) -> None:
        """Set an own attribute of some episodes.

        Raises:
            SeatError: it belongs to all of them.
        """
        if name in _SHARED or name.startswith("_"):
            raise SeatError(f"{name!r} cannot be set: all episodes of a batch share it; make another environment")
        for row, value in zip(rows, values, strict=True):
            setattr(self._seat(row), name, value)

    def call(self, name: str, rows: Iterable[int], *args: Any, **kwargs: Any) -> list[Any]:
        """Call a method of some episodes; what cannot be called is given as it is.

        Raises:
            SeatError: there is none of that name.
        """
        if name == "action_masks" and not args and not kwargs:
            masks = self._slots.action_masks()
            return [masks[row] for row in rows]
        found = self.get(name, rows)
        return [each(*args, **kwargs) if callable(each) else each for each in found]

    def _seat(self, row: int) -> Seat:
        index = range(self._slots.n)[row]
        if index not in self._seats:
            self._seats[index] = Seat(self._slots, index)
        return self._seats[index]
