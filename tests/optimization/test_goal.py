"""What a user asks for."""

from __future__ import annotations

import math

import pytest

from rlprune.errors import SettingsError
from rlprune.optimization.goal import Goal


def test_with_no_target_the_most_is_saved_within_one_point() -> None:
    goal = Goal()
    assert goal.drop == 1
    assert not goal.bounds_cost
    assert goal.text == "the most saved, at most 1 point lost (batch 1, onnxruntime)"


def test_a_target_of_time_alone_bounds_no_drop() -> None:
    goal = Goal(min_speedup=2.0)
    assert goal.drop is None
    assert goal.ms_allowed(10.0) == 5
    assert Goal(max_ms=3.0).ms_allowed(10.0) == 3
    assert Goal(max_macs=0.5).ms_allowed(10.0) == math.inf


def test_two_targets_of_time_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="min_speedup=2, max_ms=3: both say how fast it has to be"):
        Goal(min_speedup=2.0, max_ms=3.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_drop", -0.5), ("max_drop", 101.0), ("min_speedup", 1.0), ("max_ms", 0.0), ("max_macs", 1.5), ("batch", 0)],
)
def test_a_target_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=rf"{name}={value}: give "):
        Goal(**{name: value})
