"""Timing several things fairly on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import cycle, islice

from torch import Tensor

from rlprune.utils.finite import check_numbers


def interleaved(
    rows: Mapping[str, Callable[[], object]], seconds: float, min_rounds: int = 5
) -> dict[str, list[float]]:
    """Time functions in turns, so that other load on the machine affects all of them alike.

    Args:
        rows: the functions, by name.
        seconds: time limit for all functions together.
        min_rounds: rounds to run even if they take longer than that.

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
