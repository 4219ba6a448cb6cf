"""The verdict's words, from figures whose verdict is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from optimized import ROWS

from rlprune.optimization.goal import Goal
from rlprune.optimization.result import Bounds, Row
from rlprune.optimization.verdict.sentences import advice, nearest, sentences

GOAL = Goal(max_drop=0.5, min_speedup=2.0)


def row(name: str) -> Row:
    return next(each for each in ROWS if each.name == name)


def told(name: str, reason: str = "best", best: str = "rlprune", needed: int | None = None, goal: Goal = GOAL) -> Any:
    choice: Any = SimpleNamespace(reason=reason, best=SimpleNamespace(name=best), unsure=False)
    return list(sentences(goal, choice, row(name), ROWS, 600, needed))


def test_a_goal_that_is_reached_is_told_with_its_figures_and_the_rivals() -> None:
    first, _, third = told("rlprune")
    assert first.startswith("Goal reached: at most 0.5 points lost, at least 2 times as fast")
    assert "rlprune loses 0.33 points at 42.0 % of the multiply-adds and 2.12 times the speed" in first
    assert "the most accurate; static loses 1.33 points" in third


@pytest.mark.parametrize(("needed", "start"), [(None, "That can be told: "), (3100, "That cannot be told for sure: ")])
def test_whether_the_test_images_tell_is_said(needed: int | None, start: str) -> None:
    second = told("rlprune", needed=needed)[1]
    assert second.startswith(
        f"{start}600 test images put the drop at -0.44 to 1.11 points (95 %); 0.5 points are allowed"
    )
    assert ("about 3,100 would tell" in second) == (needed is not None)


def test_a_network_that_stays_has_nothing_to_tell_but_what_is_nearest_may() -> None:
    first, second, third = told("dense onnxruntime", "nothing gained")
    assert first.startswith("Goal not reached") and "nothing to tell" in second
    assert third.startswith("Leave the network as it is: nothing that was tried is faster")
    assert told("dense onnxruntime", "nothing gained", needed=900)[1].startswith("Of rlprune, which is nearest, it")


def test_a_time_too_near_to_what_is_allowed_cannot_be_told() -> None:
    second = told("rlprune", goal=Goal(max_drop=0.5, min_speedup=2.1))[1]
    assert second.startswith("That cannot be told for sure: half of all batches took 0.815 to 0.874 ms, and 0.848 ms")


def test_that_the_network_may_have_seen_the_test_images_is_said() -> None:
    choice: Any = SimpleNamespace(reason="best", best=SimpleNamespace(name="rlprune"), unsure=False)
    second = list(sentences(GOAL, choice, row("rlprune"), ROWS, 600, None, maybe_seen=True))[1]
    assert second.endswith(
        "if your network was trained on that folder, it has seen them, and these figures are too good."
    )


def test_a_simpler_row_is_said_to_be_as_good() -> None:
    third = told("static", "simpler")[2]
    assert third.startswith("Deploy the one small network: it is simpler than rlprune, and as good")


def test_the_nearest_counts_every_target() -> None:
    assert nearest(GOAL, ROWS) == row("rlprune")
    assert nearest(Goal(min_speedup=2.6), ROWS) == row("static int8")
    assert nearest(Goal(max_drop=0.5, min_speedup=2.0), [row("dense")]) is None


def test_advice_has_what_bounds_it_in_figures_and_options_by_their_names() -> None:
    plan: Any = SimpleNamespace(slice_epochs=0, profile_epochs=2)
    bounds = Bounds(stem_share=0.1, always_runs=0.2, narrowest_ms_share=0.6, decision_ms=0.21)
    choice: Any = SimpleNamespace(option=SimpleNamespace(name="static"))
    lines = list(advice(GOAL, choice, bounds, plan, ROWS, 20.0))
    text = " ".join(lines)
    assert "On the test images rlprune meets the goal (loses 0.33 points" in text
    assert "costs 20 % of the multiply-adds, the first layers alone 10 %" in text
    assert "Deciding takes rlprune 0.210 ms of a batch of 1, 25 % of its time" in text
    assert "60 % of the time for 20 % of the multiply-adds: its layers are too narrow" in text
    assert all(option in text for option in ("--time-limit 40", "--batch", "--max-drop", "--heldout"))
