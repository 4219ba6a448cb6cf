"""A time limit on a clock that the test sets: what is slower than planned is cut short, what follows keeps its time."""

from __future__ import annotations

import pytest

from rlprune.optimization.entry.limit import LATEST, TimeLimit, given_steps
from rlprune.optimization.goal import PlanOptions
from rlprune.optimization.plan import (
    CHOOSING,
    DECIDING,
    MEASURING,
    REPORTING,
    SLICES,
    SLICES_IN_USE,
    STATIC,
    WRITING,
)
from rlprune.optimization.verdict.sentences import kept_time

TRAININGS = (SLICES, SLICES_IN_USE, DECIDING, STATIC)
ENDS = (WRITING, CHOOSING, MEASURING, REPORTING)
PLANNED = dict.fromkeys(TRAININGS, 50.0) | dict.fromkeys(ENDS, 10.0)
"""Of 300 seconds, of which 285 may be used."""
N_STEPS = 100


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def train(limit: TimeLimit, clock: Clock, name: str, seconds: list[float], least: float = 1.0) -> int:
    """Make the steps of a training, each of so many seconds by its number; how many are made."""
    made, number, deadline = 0, 0, limit.deadline(name, least)
    with limit.step(name):
        while number < N_STEPS:
            clock.now += seconds[number]
            made += 1
            number += 1 if deadline is None else deadline.stride(N_STEPS - number - 1, N_STEPS)
    assert deadline is None or made + deadline.skipped == N_STEPS
    return made


def run(slower_from: int, times: float, at_the_end: float = 1.0, spent: float = 0.0) -> tuple[dict[str, int], float]:
    """All steps on a machine that becomes slower with a training's step; what was made, and seconds over the limit."""
    clock = Clock()
    limit = TimeLimit(PLANNED, 5.0, spent, clock=clock)
    made = {}
    for place, name in enumerate(TRAININGS):
        first = slower_from - place * N_STEPS
        seconds = [0.5 * (times if number >= first else 1.0) for number in range(N_STEPS)]
        made[name] = train(limit, clock, name, seconds)
    for name in ENDS:
        with limit.step(name):
            clock.now += PLANNED[name] * times * at_the_end
    return made, limit.elapsed - 300


def test_a_machine_as_fast_as_planned_makes_every_step() -> None:
    made, over = run(0, 1.0)
    assert set(made.values()) == {N_STEPS} and over < 0


@pytest.mark.parametrize("slower_from", [0, 60, 130, 250])
@pytest.mark.parametrize("times", [1.5, 2.0, 3.0])
def test_a_machine_that_becomes_slower_makes_fewer_steps_and_ends_in_time(slower_from: int, times: float) -> None:
    made, over = run(slower_from, times)
    assert over <= 0
    assert min(made.values()) >= 1
    assert sum(made.values()) < 4 * N_STEPS or times == 1.5


def test_what_is_slower_after_the_last_training_alone_exceeds_the_limit_by_no_more_than_that() -> None:
    _, over = run(0, 2.0, at_the_end=1.5)
    assert 0 < over <= 2.0 * 0.5 * sum(PLANNED[name] for name in ENDS)


def test_every_training_gets_its_part_of_too_little_time() -> None:
    made, over = run(0, 4.0)
    assert max(made.values()) <= 2 * min(made.values()) and over <= 0
    made, _ = run(0, 1.0, spent=400.0)
    assert set(made.values()) == {1}  # with no time left, what has to be made is


def test_a_pause_at_the_end_of_deciding_leaves_the_rival_its_time() -> None:
    clock = Clock()
    limit = TimeLimit(PLANNED, 5.0, clock=clock)
    train(limit, clock, DECIDING, [0.1] * 95 + [5.0] * 5)
    assert limit.affords(100)
    assert train(limit, clock, STATIC, [0.5] * N_STEPS) == N_STEPS


def test_a_rival_leaves_out_what_the_other_did_and_what_is_given_is_made() -> None:
    clock = Clock()
    assert train(TimeLimit(PLANNED, 60.0, clock=clock), clock, STATIC, [0.5] * N_STEPS, least=2.0) == N_STEPS / 2
    given = given_steps(PlanOptions(slice_epochs=3))
    assert given == {SLICES}
    limit = TimeLimit(PLANNED, 0.1, given=given, clock=clock)
    assert train(limit, clock, SLICES, [0.5] * N_STEPS) == N_STEPS


def test_what_can_be_left_out_waits_for_what_cannot() -> None:
    clock = Clock()
    limit = TimeLimit(PLANNED, 5.0, clock=clock)
    kept = 50 + 30  # the static rival, choosing, measuring, the report
    clock.now += 300 * LATEST - kept - 7
    assert limit.affords(6.9) and not limit.affords(7.1)
    deadline = limit.deadline(SLICES)
    assert deadline is not None and not deadline.past() and not deadline.missed
    clock.now += 300
    assert deadline.past() and deadline.missed


def test_a_later_process_keeps_no_time_for_a_rival_that_an_earlier_one_has_trained() -> None:
    limit = TimeLimit(PLANNED, 5.0, 180.0, clock=Clock())
    left = 300 * LATEST - 180 - 30  # choosing, measuring and the report are done anew
    assert limit.affords(left - 50) and not limit.affords(left - 49)
    limit.finish(STATIC)
    assert limit.affords(left) and not limit.affords(left + 1)


def test_the_verdict_says_what_was_left_out_and_by_how_much_a_limit_was_exceeded() -> None:
    assert list(kept_time({}, 5.0, 299.0)) == []
    (said,) = kept_time({SLICES: 0.25, "searching slices": 0.0}, 5.0, 299.0)
    assert said.endswith("these steps: training slices (25 %); searching slices.")
    assert list(kept_time({}, 5.0, 510.0)) == ["It took 8.5 minutes, more than the 5 of the time limit."]
