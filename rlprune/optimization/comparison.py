"""What was trained beside its rivals: chosen on the validation images, measured once on the test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

import rlprune
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.evaluation.results import Conditions
from rlprune.optimization.check import Examined
from rlprune.optimization.deploy import FOLDER
from rlprune.optimization.goal import Goal
from rlprune.optimization.inputs import Subject
from rlprune.optimization.result import GoalResult, OptimizeResult, Point, Row
from rlprune.optimization.verdict.choice import DENSE, Choice, Option, choose, images_needed, right_of
from rlprune.optimization.verdict.decisions import Answers, Recorded, cascade_points, learnt_points
from rlprune.optimization.verdict.measuring import (
    Candidate,
    TimeOfShare,
    answers_of,
    best_candidate,
    bounds_of,
    candidates,
    class_costs,
    curve,
    decision_ms,
    make_row,
    time_of_slices,
)
from rlprune.optimization.verdict.rows import TITLES, Runnable, Runnables, Times, time_rows
from rlprune.optimization.verdict.sentences import advice, sentences
from rlprune.optimization.work import Work
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import ComputeCost, Cost
from rlprune.profiles.search import Search

_N_SHOWN = 12
"""Test images that the report shows as the cheapest, and as the dearest."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """What was chosen on the validation images, and what is needed to measure it.

    Attributes:
        rows: all networks in the form in which they would be deployed.
        options: their figures on the validation images.
        choice: what to deploy.
        points: the curves.
        dynamic: the network that decides per image, by what was learnt or by a threshold, whichever is better.
        policies: both, by the names of their rows.
        pace: how time follows from multiply-adds.
        deciding: milliseconds of a batch that deciding takes.
        left_out: rows that could not be made, with the reason.
    """

    rows: dict[str, Runnable]
    options: dict[str, Option]
    choice: Choice
    points: tuple[Point, ...]
    dynamic: DynamicCNN
    policies: dict[str, DynamicCNN]
    pace: TimeOfShare
    deciding: float
    left_out: dict[str, str]


class Comparison:
    """Trains what is to be compared, chooses, and measures.

    Args:
        subject: what is optimised.
        examined: what the check found.
        goal: what is asked for.
        work: its trainings.
    """

    dense: nn.Module
    original: ElasticCNN
    adapted: ElasticCNN
    elastic: ElasticCNN
    found: Search
    codebook: Tensor
    policy: Policy
    static: nn.Sequential
    static_cost: ComputeCost

    def __init__(self, subject: Subject, examined: Examined, goal: Goal, work: Work) -> None:
        self.subject = subject
        self.splits = subject.splits
        self.examined = examined
        self.goal = goal
        self.work = work
        self.dense_macs = int(Cost(examined.elastic).dense.macs)

    def train(self) -> None:
        """Everything but the static rival, whose cost follows from a choice."""
        work = self.work
        self.dense = work.dense()
        self.original = work.original()
        self.adapted = work.adapted()
        self.found = work.search(self.adapted)
        self.codebook = work.codebook(self.adapted, self.found)
        self.elastic = work.specialised(self.codebook)
        self.policy = work.policy(self.elastic, self.codebook)

    def choose(self) -> Chosen:
        """Points, rows and what to deploy, all by the validation images."""
        validation = self.splits.validation
        makes = Runnables(self.original, self.splits.network, self.goal.backend)
        with self.work.step("writing networks"):
            rows = makes.dense(self.dense)
        with self.work.step("choosing"):
            pace = time_of_slices(self.elastic, self.codebook, validation, self.goal.batch)
            dense_ms = _fastest(time_rows(rows, validation, self.goal.batch, self.work.plan.timing / 4))
            right = right_of(validation.labels, answers_of(self.dense, validation, 1.0).labels)
            recorded = self._recorded(validation)
            found = self._candidates(recorded, right, dense_ms, pace)
            picked = {name: best_candidate(each, self.goal, dense_ms) for name, each in found.items()}
            policies = {name: self._dynamic(each) for name, each in picked.items()}
        self._train_static(picked["rlprune"].option, dense_ms, pace)
        with self.work.step("writing networks"):
            rows |= makes.static(self.static, self.static_cost)
            for name, dynamic in policies.items():
                rows |= makes.deciding(name, dynamic, int8=name == "rlprune")
        with self.work.step("choosing"):
            static = answers_of(self.static, validation, self.static_share)
            known = {name: (right, 1.0) for name in DENSE}
            known |= {name: (each.option.right, each.option.macs) for name, each in picked.items()}
            known["static"] = right_of(validation.labels, static.labels), self.static_share
            times = time_rows(rows, validation, self.goal.batch, self.work.plan.timing)
            options = self._options(rows, times, known, right)
            choice = choose(list(options.values()), self.goal, _fastest(times))
        accuracy = float(known["static"][0].double().mean())
        points = [point for name, each in found.items() for point in curve(name, each, picked[name])]
        points.append(Point(name="static", macs_share=self.static_share, accuracy=accuracy, chosen=True))
        points.append(Point(name="dense", macs_share=1.0, accuracy=float(right.double().mean())))
        dynamic = policies[_better_way(options, choice, self.goal)]
        deciding = decision_ms(policies["rlprune"], recorded, self.goal.batch)
        return Chosen(rows, options, choice, tuple(points), dynamic, policies, pace, deciding, makes.left_out)

    def _candidates(
        self, recorded: Recorded, right: Tensor, dense_ms: float, pace: TimeOfShare
    ) -> dict[str, list[Candidate]]:
        """Points of both ways of deciding; thresholds are tuned on the images that teach decisions."""
        tuned = cascade_points(self.elastic, self.codebook, self._recorded(self.splits.policy))
        points = {"cascade": tuned, "rlprune": learnt_points(self.policy)}
        return {name: candidates(name, each, recorded, right, dense_ms, pace) for name, each in points.items()}

    def _recorded(self, images: ImageSet) -> Recorded:
        return Recorded(DynamicCNN.for_images(self.elastic, self.policy, images, memory=float("inf")), images)

    def _dynamic(self, candidate: Candidate) -> DynamicCNN:
        """The network under a point's policy; one for a range of penalties stays one, at the penalty of the point."""
        images = self.splits.network
        if candidate.point.penalty is None:
            return DynamicCNN.for_images(self.elastic, candidate.point.policy, images)
        return DynamicCNN.for_images(self.elastic, self.policy, images).at(penalty=candidate.point.penalty)

    def _train_static(self, learnt: Option, dense_ms: float, pace: TimeOfShare) -> None:
        """One small network of the same cost: in time, unless multiply-adds are what is bounded."""
        by_macs = self.goal.max_macs is not None and not self.goal.bounds_time
        share = learnt.macs if by_macs else pace.share_at(learnt.ms / dense_ms)
        self.static, self.static_cost = self.work.static(self.adapted, self.found, share)

    def _options(
        self,
        rows: Mapping[str, Runnable],
        times: Mapping[str, Times],
        known: Mapping[str, tuple[Tensor, float]],
        dense_right: Tensor,
    ) -> dict[str, Option]:
        """Every row with its figures on the validation images; those in eight-bit integers are asked."""
        validation = self.splits.validation
        options = {}
        for name, row in rows.items():
            if name in known:
                right, share = known[name]
            else:
                answers = row.answers(validation, self.dense_macs)
                right, share = right_of(validation.labels, answers.labels), float(answers.shares.mean())
            options[name] = Option(name, right, dense_right, share, times[name].ms)
        return options

    def measure(self, chosen: Chosen) -> tuple[OptimizeResult, Answers]:
        """Measure all rows on the test images, once; also what `rlprune` answers to each of them."""
        test = self.splits.test
        with self.work.step("measuring"):
            recorded = self._recorded(test)
            known = {name: recorded.answers(each.policy) for name, each in chosen.policies.items()}
            dense = answers_of(self.dense, test, 1.0)
            known |= {name: dense for name in DENSE}
            known["static"] = answers_of(self.static, test, self.static_share)
            for name, runnable in chosen.rows.items():
                if name not in known:
                    known[name] = runnable.answers(test, self.dense_macs)
            times = time_rows(chosen.rows, test, self.goal.batch, self.work.plan.timing)
        right = right_of(test.labels, dense.labels)
        rows = tuple(
            make_row(
                name,
                chosen.rows[name].backend,
                known[name],
                right,
                test.labels,
                times[name],
                _fastest(times),
                chosen.options[name].drop,
                self.goal,
            )
            for name in TITLES
            if name in chosen.rows
        )
        return self._result(chosen, rows, right, known), known["rlprune"]

    def _result(
        self, chosen: Chosen, rows: tuple[Row, ...], dense_right: Tensor, known: Mapping[str, Answers]
    ) -> OptimizeResult:
        test = self.splits.test
        name = chosen.choice.option.name
        row = next(each for each in rows if each.name == name)
        right = right_of(test.labels, known[name].labels)
        needed = self._n_needed(row, dense_right, right)
        bounds = bounds_of(self.elastic, chosen.pace, chosen.deciding)
        order = known["rlprune"].shares.argsort(stable=True)
        told = advice(self.goal, row, bounds, self.work.plan, rows, self.work.minutes)
        return OptimizeResult(
            goal=_goal_result(self.goal),
            reached=row.meets,
            deploy=row.kind,
            deploy_row=name,
            deploy_file=_file_of(row),
            sentences=tuple(sentences(self.goal, chosen.choice, row, rows, len(test), needed)),
            advice=() if row.meets else tuple(told),
            rows=rows,
            left_out=chosen.left_out,
            points=chosen.points,
            bounds=bounds,
            check=self.examined.result,
            plan=self.work.plan.figures() | {"profile_epochs": float(self.work.profile_epochs())},
            classes=tuple(class_costs(test, known["rlprune"], dense_right)),
            easiest=tuple(order[:_N_SHOWN].tolist()),
            hardest=tuple(order.flip(0)[:_N_SHOWN].tolist()),
            n_needed=needed,
            seed=self.work.seed,
            seconds=self.work.seconds,
            seconds_estimated=self.work.plan.total,
            conditions=Conditions.now(),
            version=rlprune.__version__,
        )

    def _n_needed(self, row: Row, dense_right: Tensor, right: Tensor) -> int | None:
        """Test images that would tell whether the drop is within the goal; None if these do, or nothing is asked."""
        if self.goal.drop is None or row.name in DENSE:
            return None
        low, high = row.drop_interval
        if high <= self.goal.drop or low > self.goal.drop:
            return None
        return max(images_needed(dense_right, right, self.goal.drop), len(right) + 1)

    @property
    def static_share(self) -> float:
        """Multiply-adds of the static rival over the network's."""
        return int(self.static_cost.macs) / self.dense_macs

    def files(self, chosen: Chosen) -> dict[str, bytes]:
        """The ONNX files to deploy, by name; for PyTorch they are made now."""
        makes = Runnables(self.original, self.splits.network, "onnxruntime")
        rows = chosen.rows
        with self.work.step("writing networks"):
            if self.goal.backend == "pytorch":
                rows = rows | makes.static(self.static, self.static_cost)
                rows |= makes.deciding("rlprune", chosen.dynamic)
        name = chosen.choice.option.name
        dynamic = "cascade" if chosen.dynamic is chosen.policies["cascade"] else "rlprune"
        wanted = {"dynamic.onnx": dynamic, "static.onnx": "static"}
        if name.endswith("int8"):
            wanted["int8.onnx"] = name
        contents = {file: rows[row].content for file, row in wanted.items() if row in rows}
        return {file: content for file, content in contents.items() if content is not None}


def _fastest(times: Mapping[str, Times]) -> float:
    """Milliseconds of the network as it is, in its fastest form."""
    return min(times[name].ms for name in DENSE if name in times)


def _better_way(options: Mapping[str, Option], choice: Choice, goal: Goal) -> str:
    """Which way of deciding is deployed as the dynamic network: the one that was chosen, else the more accurate."""
    if choice.option.name in ("cascade", "rlprune"):
        return choice.option.name
    both = [options[name] for name in ("rlprune", "cascade") if name in options]
    return min(both, key=lambda each: (each.cautious_drop, each.ms)).name if both else "rlprune"


def _file_of(row: Row) -> str | None:
    """Where the deployed row's file is, relative to the folder."""
    if row.kind == "dense":
        return None
    return f"{FOLDER}/{row.kind}.onnx"


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
