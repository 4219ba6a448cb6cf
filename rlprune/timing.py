"""Timing several things fairly on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


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
