"""Figures of rows and candidates, where they are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlprune.optimization.goal import Goal
from rlprune.optimization.result import Row
from rlprune.optimization.verdict.figures import Answers, Times
from rlprune.optimization.verdict.measuring import TimeOfShare, make_row

LABELS = torch.arange(200) % 5
RIGHT = torch.ones(200, dtype=torch.bool)


def row(n_wrong: int = 0, ms: float = 5.0, share: float = 0.4, name: str = "static", **goal: Any) -> Row:
    labels = LABELS.clone()
    labels[:n_wrong] = (labels[:n_wrong] + 1) % 5
    answers = Answers(labels, torch.full((200,), share, dtype=torch.float64))
    return make_row(name, "onnxruntime", answers, RIGHT, LABELS, Times(ms, ms - 1, ms + 1), 10.0, 0.25, Goal(**goal))


def test_a_row_has_the_figures_of_its_answers() -> None:
    found = row(3)
    assert found.accuracy == pytest.approx(0.985) and found.drop == pytest.approx(1.5)
    assert found.drop_interval[0] < 1.5 < found.drop_interval[1]
    assert found.accuracy_interval[0] < 0.985 < found.accuracy_interval[1]
    assert (found.speedup, found.ms_low, found.ms_high, found.macs_share) == (2.0, 4.0, 6.0, pytest.approx(0.4))
    assert (found.kind, found.validation_drop) == ("static", 0.25)
    assert row(name="dense").drop_interval == (0.0, 0.0)


def test_a_row_meets_a_goal_to_the_last_figure() -> None:
    assert row(3, max_drop=1.5).meets and not row(3, max_drop=1.4).meets
    assert row(3, min_speedup=2.0).meets and not row(3, min_speedup=2.1).meets
    assert row(3, max_ms=5.0).meets and not row(3, max_ms=4.9).meets
    assert row(3, max_macs=0.4).meets and not row(3, max_macs=0.39).meets
    assert not row(3).meets and row(2).meets  # within one point, where nothing is said
    assert row(-0, min_speedup=2.0, max_drop=0.0).meets


def test_time_follows_from_multiply_adds_between_measured_slices() -> None:
    pace = TimeOfShare((0.2, 0.6, 1.0), (0.4, 0.7, 1.0))
    assert pace.at(0.2) == 0.4 and pace.at(0.4) == pytest.approx(0.55) and pace.at(0.05) == 0.4
    assert pace.share_at(0.55) == pytest.approx(0.4)
    assert pace.share_at(0.1) == 0.2 and pace.share_at(3.0) == 1.0
    bumpy = TimeOfShare((0.2, 0.6, 1.0), (0.9, 0.7, 1.0))  # the larger slice is the faster one
    assert bumpy.share_at(0.75) == pytest.approx(0.6)
