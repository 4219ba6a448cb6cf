"""What a stream has done so far, in numbers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_N_RECENT = 10_000
"""Images by which it is told how long images wait."""


@dataclass(frozen=True)
class StreamFigures:
    """What a stream has done so far.

    Attributes:
        images: how many are done.
        buckets: how often some of them ran together: stems, and slices.
        mean_bucket: how many ran together, on average; NaN before the first.
        waiting: how many are accepted and not done.
        wait_p50: milliseconds that an image waited, before and between its passes, in the middle; of the last 10,000
            images, NaN before the first.
        wait_p99: milliseconds within which 99 % of them did so.
    """

    images: int
    buckets: int
    mean_bucket: float
    waiting: int
    wait_p50: float
    wait_p99: float


class Tally:
    """Counts buckets, and how long images waited."""

    def __init__(self) -> None:
        self._n_done = 0
        self._n_buckets = 0
        self._n_ran = 0
        self._waits: deque[float] = deque(maxlen=_N_RECENT)

    def count(self, n_ran: int, waits: Sequence[float]) -> None:
        """Count a bucket.

        Args:
            n_ran: images of it.
            waits: seconds that each of those that are done now has waited.
        """
        self._n_buckets += 1
        self._n_ran += n_ran
        self._n_done += len(waits)
        self._waits.extend(waits)

    def figures(self, n_waiting: int) -> StreamFigures:
        """All of them, while so many images are accepted and not done."""
        mean = self._n_ran / self._n_buckets if self._n_buckets else math.nan
        p50, p99 = (1000 * np.quantile([*self._waits], (0.5, 0.99))).tolist() if self._waits else (math.nan, math.nan)
        return StreamFigures(self._n_done, self._n_buckets, mean, n_waiting, p50, p99)
