"""Points of each way of deciding, and how they compare at equal cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from rlprune.evaluation.timing_results import ComparisonRow, EqualCostRow

Method = Literal["rl once", "rl progressive", "threshold", "gates", "sparsity", "branches", "static", "uniform"]
METHODS: tuple[Method, ...] = get_args(Method)
LEARNT = ("rl once", "rl progressive")


@dataclass(frozen=True)
class Candidate:
    """One point of one method.

    Attributes:
        method: whose.
        label: at which price, density or profile.
        predict: pixels uint8 (B, C, H, W) -> labels int64 (B,), multiply-adds int64 (B,).
        run: the same as fast as it goes, for timing.
        decision: what deciding costs each time, over the dense multiply-adds.
        saves_time: whether what is cut is not computed.
    """

    method: Method
    label: str
    predict: Callable[[Tensor], tuple[Tensor, Tensor]]
    run: Callable[[Tensor], object]
    decision: float = 0.0
    saves_time: bool = True


def at_equal_macs(rows: Sequence[ComparisonRow]) -> tuple[EqualCostRow, ...]:
    """What all methods reach at the cost of every learnt point, and which of them beat it; see `Comparison.run`."""
    found = []
    methods = list(dict.fromkeys(row.method for row in rows))
    for row in (row for row in rows if row.method in LEARNT):
        reached = {method: _at(row.macs_share, method, rows) for method in methods if method not in LEARNT}
        high = row.accuracy_interval[1]
        found.append(
            EqualCostRow(
                method=row.method,
                label=row.label,
                macs_share=row.macs_share,
                accuracy=row.accuracy,
                accuracies=reached,
                beaten=tuple(method for method, other in reached.items() if other is not None and other > high),
            )
        )
    return tuple(found)


def _at(share: float, method: str, rows: Sequence[ComparisonRow]) -> float | None:
    """The accuracy of a method at a cost: mixed of its points, that nothing cheaper of it beats, on either side."""
    best: list[tuple[float, float]] = []
    for point in sorted((row.macs_share, row.accuracy) for row in rows if row.method == method):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    if share < best[0][0]:
        return None
    shares, accuracies = zip(*best, strict=True)
    return float(np.interp(share, shares, accuracies))
