"""Timing several things fairly on a machine that others use too."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import cycle, islice

from torch import Tensor

from rlprune.utils.finite import check_numbers

_N_PACED = 10
"""Steps by whose mean a pace is told."""
_FEWEST_PACED = 3
"""And the fewest, as the first ones of all take longer."""


class Deadline:
    """When something long has to be done: of its steps some are left out in time, by the pace of the last ones.

    Args:
        left: seconds that are left for the rest, from the share of all steps that it is, and from the seconds that all
            steps take at that pace, None where that is not known yet.
        least: how far a step goes on at least.
        clock: seconds, from any moment on.

    Attributes:
        skipped: how many steps were left out.
        missed: whether `past` was asked after it.
        n_all: how many there are in all, those that were left out included; 0 until the first is made.
    """

    def __init__(
        self,
        left: Callable[[float, float | None], float],
        *,
        least: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.skipped = 0
        self.missed = False
        self.n_all = 0
        self._left = left
        self._least = least
        self._debt = 0.0
        self._ends = clock() + left(1.0, None)
        self._times: deque[float] = deque(maxlen=_N_PACED + 1)  # not what comes before the first step
        self._clock = clock

    def past(self) -> bool:
        """Whether the time that there was for all of it, as it began, has gone."""
        self.missed = self._clock() >= self._ends
        return self.missed

    def stride(self, n_left: int, n_all: int) -> int:
        """How many steps to go on by after one that was made: 1 while all that are left fit, else some are left out.

        Args:
            n_left: steps that are left.
            n_all: steps in all.

        Returns:
            1 up to 1 + `n_left`, after which there is none left.
        """
        self.n_all = n_all
        self._times.append(self._clock())
        n_paced = len(self._times) - 1
        known = n_paced >= _FEWEST_PACED
        pace = (self._times[-1] - self._times[0]) / max(n_paced, 1)
        left = self._left(n_left / n_all, pace * n_all if known else None)
        ratio = self._least
        if left <= 0:
            ratio = 1.0 + n_left
        elif known:
            ratio = max(ratio, n_left * pace / left)
        self._debt += ratio - 1
        skipped = min(int(self._debt), n_left)
        self._debt -= skipped
        self.skipped += skipped
        return 1 + skipped


def interleaved(
    rows: Mapping[str, Callable[[], object]],
    seconds: float,
    min_rounds: int = 5,
    warm: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, list[float]]:
    """Time functions in turns, so that other load on the machine affects all of them alike.

    Args:
        rows: the functions, by name.
        seconds: time limit for all functions together.
        min_rounds: rounds to run even if they take longer than that.
        warm: what runs before a function's turn, untimed, since the functions before it had the caches and threads.

    Returns:
        Milliseconds of each round, by name.
    """
    check_numbers(seconds=seconds, least=0, most=86_400)
    for run in rows.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in rows}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < min_rounds:
        for name, run in rows.items():
            if warm is not None:
                warm[name]()
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


class Turns:
    """Runs the next few batches of a tensor at every call, and starts over after the last.

    Args:
        network: called with one batch.
        images: the batches one after another, (N, ...); an incomplete last batch is left out.
        batch: images per batch.
        n_batches: batches to run per call.
    """

    def __init__(self, network: Callable[[Tensor], object], images: Tensor, batch: int, n_batches: int) -> None:
        self.network = network
        self.n_batches = n_batches
        self.batches = cycle([part for part in images.split(batch) if len(part) == batch])

    def __call__(self) -> None:
        """Run the next batches."""
        for images in islice(self.batches, self.n_batches):
            self.network(images)

    def warm(self) -> None:
        """Run the next one."""
        self.network(next(self.batches))
