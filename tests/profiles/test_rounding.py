from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from nets import network

from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.levels import widths_of
from rlprune.profiles import timing
from rlprune.profiles.rounding import STEPS, measured_step, smallest_step


def times(*milliseconds: float) -> dict[int, float]:
    return dict(zip(STEPS, milliseconds, strict=True))


@pytest.mark.parametrize(
    ("tables", "step"),
    [
        ([times(1.0, 1.1, 1.2, 1.3, 1.4)], 1),  # each channel less saves time
        ([times(1.0, 1.0, 1.0, 1.0, 1.0)], 1),  # the narrower ones are no slower
        ([times(2.0, 1.0, 1.1, 1.2, 1.3)], 4),
        ([times(1.0, 2.0, 1.1, 1.2, 1.3)], 1),  # only its own widths would run
        ([times(1.5, 1.5, 1.4, 1.0, 1.1)], 16),
        ([times(2.0, 2.0, 2.0, 2.0, 1.0)], 32),
        ([times(1.04, 1.0, 1.0, 1.0, 1.0)], 1),  # times are never quite the same
        ([times(1.0, 1.1, 1.2, 1.3, 1.4), times(3.0, 3.0, 2.0, 2.2, 2.4)], 8),  # at any keep ratio
        ([], 1),  # nothing between all channels and none
    ],
)
def test_the_smallest_step_whose_widths_run_no_worse_than_wider_ones(
    tables: list[Mapping[int, float]], step: int
) -> None:
    assert smallest_step(tables) == step


def test_slices_of_the_network_are_timed_once_for_each_width(monkeypatch: pytest.MonkeyPatch) -> None:
    elastic = ElasticCNN.from_model(network("plain"), (3, 8, 8), keep_ratios=(0.3, 0.6, 1), round_to=1)
    before = elastic.widths.clone()
    timed: list[dict[str, Any]] = []

    def interleaved(rows: dict[str, Callable[[], torch.Tensor]], seconds: float) -> dict[str, list[float]]:
        assert all(len(row()) == 2 for row in rows.values())
        timed.append(rows)
        return {name: [100.0 - sum(map(int, name.strip("[]").split(",")))] for name in rows}  # wider is faster

    monkeypatch.setattr(timing, "interleaved", interleaved)
    found = measured_step(elastic, batch=2, seconds=0)
    of_steps = {step: widths_of(elastic.groups, elastic.keep_levels, step) for step in STEPS}
    wanted = {str(widths[:, level].tolist()) for widths in of_steps.values() for level in range(2)}
    assert timed[0].keys() == wanted
    assert len(wanted) < 2 * len(STEPS)
    assert elastic.widths.equal(before)
    assert found > 1
