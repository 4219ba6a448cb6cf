"""Timing several things fairly on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import cycle, islice

from torch import Tensor


def interleaved(
    rows: Mapping[str, Callable[[], object]], seconds: float, min_rounds: int = 5
) -> dict[str, list[float]]:
    """Time functions in turns, so that whatever else the machine does meets all of them alike.

    Args:
        rows: what to time, by name.
        seconds: how long to go on, all rows together.
        min_rounds: rounds to make however long they take.

    Returns:
        Milliseconds of every round, by name.
    """
    for run in rows.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in rows}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < min_rounds:
        for name, run in rows.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


class Turns:
    """Runs a few batches of a tensor whenever it is called, one after another, round and round.

    Args:
        network: takes a batch.
        images: (N, ...), what batches are cut from; a last one that is smaller is left out.
        batch: images of one.
        n_batches: to run in each turn.
    """

    def __init__(self, network: Callable[[Tensor], object], images: Tensor, batch: int, n_batches: int) -> None:
        self.network, self.n_batches = network, n_batches
        self.batches = cycle([part for part in images.split(batch) if len(part) == batch])

    def __call__(self) -> None:
        """Run the next ones."""
        for images in islice(self.batches, self.n_batches):
            self.network(images)
