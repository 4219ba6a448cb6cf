"""The result of an optimisation, from what was chosen and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

import rlprune
from rlprune.data.image_set import ImageSet
from rlprune.evaluation.results import Conditions
from rlprune.optimization.goal import Goal
from rlprune.optimization.plan import Plan
from rlprune.optimization.result import CheckResult, GoalResult, OptimizeResult, Point, Row
from rlprune.optimization.trained import Trained
from rlprune.optimization.verdict.choice import Choice, images_needed
from rlprune.optimization.verdict.figures import Answers, right_of
from rlprune.optimization.verdict.measuring import TimeOfShare, bounds_of, class_costs
from rlprune.optimization.verdict.sentences import advice, kept_time, nearest, sentences

_NOT_LEARNT = (
    "Learning which images are hard was not surely ahead of tuned thresholds: the row rlprune is the thresholds that "
    "it began as."
)
_N_SHOWN = 12
"""Test images that the report shows as the cheapest, and as the dearest."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was chosen on the validation images, and figures of the test images.

    Attributes:
        choice: what to deploy.
        points: curves on the validation images.
        left_out: rows that could not be made, with the reason.
        pace: how time follows from multiply-adds.
        deciding: milliseconds of a batch that deciding takes; None if it was not measured.
        rows: the table.
        answers: of each row to the test images, by its name.
        dense_right: whether the network as it is is right on each of them, bool (N,).
        dynamic_row: whose the bundle and `dynamic.onnx` are.
    """

    choice: Choice
    points: tuple[Point, ...]
    left_out: dict[str, str]
    pace: TimeOfShare
    deciding: float | None
    rows: tuple[Row, ...]
    answers: dict[str, Answers]
    dense_right: Tensor
    dynamic_row: str


def summarise(
    goal: Goal,
    check: CheckResult,
    plan: Plan,
    trained: Trained,
    measured: Measured,
    test: ImageSet,
    *,
    minutes: float,
    seed: int,
    seconds: float,
    cut: Mapping[str, float],
) -> OptimizeResult:
    """Put figures into words, and everything into one result.

    Args:
        goal: what was asked for.
        check: what was found before it began.
        plan: what was done.
        trained: what was trained.
        measured: what was chosen, and figures.
        test: those.
        minutes: time limit.
        seed: of everything but times.
        seconds: that everything took.
        cut: share of each step that was left out for want of time, by its name.
    """
    name = measured.choice.option.name
    row = next(each for each in measured.rows if each.name == name)
    judged = nearest(goal, measured.rows) if row.kind == "dense" else row
    needed = None if judged is None else _n_needed(goal, judged, measured, test)
    bounds = bounds_of(trained.elastic, measured.pace, measured.deciding)
    decided = measured.answers["rlprune"]
    order = decided.shares.argsort(stable=True)
    return OptimizeResult(
        goal=_goal_result(goal),
        reached=row.meets,
        deploy=row.kind,
        deploy_row=name,
        deploy_file=_file_of(row, measured.rows),
        dynamic_row=measured.dynamic_row,
        sentences=(
            *sentences(
                goal,
                measured.choice,
                row,
                measured.rows,
                len(test),
                needed,
                maybe_seen=bool(check.test_is_part_of_training_folder) and check.accuracy is not None,
            ),
            *(() if trained.learnt else (_NOT_LEARNT,)),
            *kept_time(cut, minutes, seconds),
        ),
        advice=() if row.meets else tuple(advice(goal, measured.choice, bounds, plan, measured.rows, minutes)),
        rows=measured.rows,
        left_out=measured.left_out,
        points=measured.points,
        bounds=bounds,
        check=check,
        plan=plan.figures(),
        classes=tuple(class_costs(test, decided, measured.dense_right)),
        easiest=tuple(order[:_N_SHOWN].tolist()),
        hardest=tuple(order.flip(0)[:_N_SHOWN].tolist()),
        n_needed=needed,
        seed=seed,
        seconds=seconds,
        seconds_estimated=plan.total,
        conditions=Conditions.now(),
        version=rlprune.__version__,
    )


def _file_of(row: Row, rows: tuple[Row, ...]) -> str | None:
    """The file of what is to be deployed; None for a network as it is that ONNX cannot hold."""
    if row.kind == "dense" and all(each.name != "dense onnxruntime" for each in rows):
        return None
    return f"deploy/{row.kind}.onnx"


def _n_needed(goal: Goal, row: Row, measured: Measured, test: ImageSet) -> int | None:
    """Test images that would tell whether the drop is within the goal; None if these do, or nothing is asked."""
    if goal.drop is None:
        return None
    low, high = row.drop_interval
    if high <= goal.drop or low > goal.drop:
        return None
    right = right_of(test.labels, measured.answers[row.name])
    return max(images_needed(measured.dense_right, right, goal.drop), len(test) + 1)


def _goal_result(goal: Goal) -> GoalResult:
    return GoalResult(
        text=goal.text,
        max_drop=goal.drop,
        min_speedup=goal.min_speedup,
        max_ms=goal.max_ms,
        max_macs=goal.max_macs,
        batch=goal.batch,
        backend=goal.backend,
    )
