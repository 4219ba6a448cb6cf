"""What was trained beside its rivals: chosen on the validation images, measured once on the test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from rlprune.data.image_set import ImageSet, Splits
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.optimization.goal import Goal
from rlprune.optimization.result import Point
from rlprune.optimization.trained import Static, Trained
from rlprune.optimization.verdict.choice import Choice, Option, choose
from rlprune.optimization.verdict.decisions import (
    Candidate,
    Recorded,
    best_candidate,
    candidates,
    cascade_points,
    curve,
    learnt_points,
)
from rlprune.optimization.verdict.figures import DENSE, TITLES, Answers, Times, answers_of, right_of
from rlprune.optimization.verdict.measuring import TimeOfShare, make_row, pace_of
from rlprune.optimization.verdict.rows import NO_TIME, OPTIONAL, Runnable, Runnables, time_rows
from rlprune.optimization.verdict.summary import Measured
from rlprune.profiles.cost import Cost

_ROUNDS = 3
"""How often a point is picked anew, at most, as what it takes is not what was expected."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """What was chosen on the validation images, and what is needed to measure it.

    Attributes:
        rows: all networks in the form in which they would be deployed.
        options: their figures on the validation images.
        choice: what to deploy.
        points: the curves.
        dynamic_row: `cascade` where that is to be deployed, else `rlprune`: what `dynamic.onnx` and the bundle hold.
        policies: networks that decide per image, by the names of their rows.
        static: one small network for all images.
        pace: how time follows from multiply-adds.
        deciding: milliseconds of a batch that deciding takes; None if there is no such row.
        left_out: rows that could not be made, with the reason.
    """

    rows: dict[str, Runnable]
    options: dict[str, Option]
    choice: Choice
    points: tuple[Point, ...]
    dynamic_row: str
    policies: dict[str, DynamicCNN]
    static: Static
    pace: TimeOfShare
    deciding: float | None
    left_out: dict[str, str]

    @property
    def dynamic(self) -> DynamicCNN:
        """What the bundle holds."""
        return self.policies[self.dynamic_row]


class Comparison:
    """Chooses and measures.

    Args:
        trained: what is compared.
        splits: the images.
        goal: what is asked for.
    """

    def __init__(self, trained: Trained, splits: Splits, goal: Goal) -> None:
        self.trained = trained
        self.splits = splits
        self.goal = goal
        self.dense_macs = int(Cost(trained.original).dense.macs)

    def choose(self) -> Chosen:
        """Points, rows and what to deploy, all by the validation images."""
        trained, validation = self.trained, self.splits.validation
        makes = Runnables(trained.original, self.splits.network, self.goal.backend, trained.affords)
        with trained.step("writing networks"):
            rows = makes.dense(trained.dense)
            slices = makes.slices(trained.elastic, trained.codebook)
        with trained.step("choosing"):
            pace, dense_ms = self._pace(rows, slices)
            right = right_of(validation.labels, answers_of(trained.dense, validation, 1.0))
            found = self._candidates(right, dense_ms, pace)
            picked = {name: self._picked(name, each, makes, rows, dense_ms) for name, each in found.items()}
            policies = {name: self._dynamic(each) for name, each in picked.items()}
        static = trained.static(self._static_share(picked["rlprune"].option, dense_ms, pace))
        static_share = int(static[1].macs) / self.dense_macs
        with trained.step("writing networks"):
            rows |= makes.static(*static)
            for name, dynamic in policies.items():
                rows |= makes.deciding(name, dynamic, int8=name == "rlprune")
        with trained.step("choosing"):
            known = {name: (right, 1.0) for name in DENSE}
            known |= {name: (each.option.right, each.option.macs) for name, each in picked.items()}
            small = right_of(validation.labels, answers_of(static[0], validation, static_share))
            known["static"] = small, static_share
            times = self._times(rows, trained.timing)
            for name in self._too_long(rows, times):
                del rows[name]
                makes.left_out[name] = NO_TIME
            options = self._options(rows, times, known, right)
            choice = choose(list(options.values()), self.goal, _fastest(times))
        points = [point for name, each in found.items() for point in curve(name, each, picked[name].point)]
        dynamic_row = "cascade" if choice.option.name == "cascade" else "rlprune"
        points.append(_point("static", static_share, small, chosen=True))
        points.append(_point("dense", 1.0, right))
        return Chosen(
            rows=rows,
            options=options,
            choice=choice,
            points=tuple(points),
            dynamic_row=dynamic_row,
            policies=policies,
            static=static,
            pace=pace,
            deciding=_deciding_ms(picked["rlprune"], times, dense_ms),
            left_out=makes.left_out,
        )

    def _pace(self, dense: dict[str, Runnable], slices: dict[str, Runnable]) -> tuple[TimeOfShare, float]:
        """How time follows from multiply-adds, and the milliseconds of the network as it is, timed in turns."""
        trained = self.trained
        times = self._times(dense | slices, trained.timing / 2)
        whole = _fastest(times)
        shares = (Cost(trained.elastic).of(trained.codebook).macs.double() / self.dense_macs).tolist()
        return pace_of(shares, [times[name].ms for name in slices], whole), whole

    def _times(self, rows: Mapping[str, Runnable], seconds: float) -> dict[str, Times]:
        return time_rows(rows, self.splits.validation, self.goal.batch, seconds)

    def _picked(
        self,
        name: str,
        found: list[Candidate],
        makes: Runnables,
        dense: dict[str, Runnable],
        dense_ms: float,
    ) -> Candidate:
        """The best point of a way of deciding: picked by what it should take, and again by what it does take."""
        picked = best_candidate(found, self.goal, dense_ms)
        for number in range(_ROUNDS):
            if number and not makes.affords_more():
                break
            row = makes.deciding(name, self._dynamic(picked))
            if not row:
                break
            times = self._times(dense | row, self.trained.timing / 8)
            factor = times[name].ms / _fastest(times) / (picked.option.ms / dense_ms)
            found = [each.slower(factor) for each in found]
            before, picked = picked, best_candidate(found, self.goal, dense_ms)
            if picked.point is before.point:
                break
        return picked

    def _candidates(self, right: Tensor, dense_ms: float, pace: TimeOfShare) -> dict[str, list[Candidate]]:
        """Points of both ways of deciding; thresholds are tuned on the images that teach decisions."""
        trained, recorded = self.trained, self._recorded(self.splits.validation)
        tuned = cascade_points(trained.elastic, trained.codebook, self._recorded(self.splits.policy))
        points = {"cascade": tuned, "rlprune": learnt_points(trained.policy)}
        return {name: candidates(name, each, recorded, right, dense_ms, pace) for name, each in points.items()}

    def _recorded(self, images: ImageSet) -> Recorded:
        dynamic = DynamicCNN.for_images(self.trained.elastic, self.trained.policy, images, memory=float("inf"))
        return Recorded(dynamic, images)

    def _dynamic(self, candidate: Candidate) -> DynamicCNN:
        """The network under a point's policy; one for a range of penalties stays one, at the penalty of the point."""
        images, elastic = self.splits.network, self.trained.elastic
        if candidate.point.penalty is None:
            return DynamicCNN.for_images(elastic, candidate.point.policy, images)
        return DynamicCNN.for_images(elastic, self.trained.policy, images).at(penalty=candidate.point.penalty)

    def _static_share(self, learnt: Option, dense_ms: float, pace: TimeOfShare) -> float:
        """Multiply-adds for the same cost: in time, unless multiply-adds are what is bounded."""
        by_macs = self.goal.max_macs is not None and not self.goal.bounds_time
        return learnt.macs if by_macs else pace.share_at(learnt.ms / dense_ms)

    def _too_long(self, rows: Mapping[str, Runnable], times: Mapping[str, Times]) -> list[str]:
        """Rows that can be left out, and that validation and test images take too long to run through."""
        n_batches = (len(self.splits.validation) + len(self.splits.test)) / self.goal.batch
        asked = [name for name in rows if name in OPTIONAL and name != "cascade"]
        return [name for name in asked if not self.trained.affords(n_batches * times[name].ms / 1000)]

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
                right, share = right_of(validation.labels, answers), float(answers.shares.mean())
            options[name] = Option(name, right, dense_right, share, times[name].ms)
        return options

    def measure(self, chosen: Chosen) -> Measured:
        """Measure all rows on the test images, once."""
        test = self.splits.test
        with self.trained.step("measuring"):
            answers = self._answers(chosen)
            times = time_rows(chosen.rows, test, self.goal.batch, self.trained.timing)
        right = right_of(test.labels, answers["dense"])
        rows = tuple(
            make_row(
                name,
                chosen.rows[name].backend,
                answers[name],
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
        return Measured(
            choice=chosen.choice,
            points=chosen.points,
            left_out=chosen.left_out,
            pace=chosen.pace,
            deciding=chosen.deciding,
            rows=rows,
            answers=answers,
            dense_right=right,
            dynamic_row=chosen.dynamic_row,
        )

    def _answers(self, chosen: Chosen) -> dict[str, Answers]:
        """What all rows answer to the test images; in float32 a network answers the same in any form."""
        test = self.splits.test
        recorded = self._recorded(test)
        found = {name: recorded.answers(each.policy) for name, each in chosen.policies.items()}
        dense = answers_of(self.trained.dense, test, 1.0)
        found |= {name: dense for name in DENSE}
        network, cost = chosen.static
        found["static"] = answers_of(network, test, int(cost.macs) / self.dense_macs)
        for name, runnable in chosen.rows.items():
            if name not in found:
                found[name] = runnable.answers(test, self.dense_macs)
        return found

    def files(self, chosen: Chosen) -> dict[str, bytes]:
        """The ONNX files to deploy, by name; for PyTorch they are made now."""
        rows, way = dict(chosen.rows), chosen.dynamic_row
        if self.goal.backend == "pytorch":
            makes = Runnables(self.trained.original, self.splits.network, "onnxruntime")
            with self.trained.step("writing networks"):
                rows |= makes.static(*chosen.static) | makes.deciding(way, chosen.dynamic)
        wanted = {"dynamic.onnx": way, "static.onnx": "static"}
        name = chosen.choice.option.name
        if name in DENSE:
            wanted["dense.onnx"] = "dense onnxruntime"
        elif name.endswith("int8"):
            wanted["int8.onnx"] = name
        contents = {file: rows[row].content for file, row in wanted.items() if row in rows}
        return {file: content for file, content in contents.items() if content is not None}


def _point(name: str, share: float, right: Tensor, *, chosen: bool = False) -> Point:
    return Point(name=name, macs_share=share, accuracy=float(right.double().mean()), chosen=chosen)


def _fastest(times: Mapping[str, Times]) -> float:
    """Milliseconds of the network as it is, in its fastest form."""
    return min(times[name].ms for name in DENSE if name in times)


def _deciding_ms(picked: Candidate, times: Mapping[str, Times], dense_ms: float) -> float | None:
    """Milliseconds of a batch beside those of the slices: deciding, sorting, and starting one slice after the other."""
    if "rlprune" not in times:
        return None
    return max(0.0, times["rlprune"].ms - picked.slices_ms * _fastest(times) / dense_ms)
