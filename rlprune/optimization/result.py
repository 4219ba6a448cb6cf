"""What an optimisation gives, as types: what was found before it began, its rows, and the verdict.

Shares and accuracies are in [0, 1]; drops are in points (0.5: from 92.0 % to 91.5 %); times are milliseconds of a
batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlprune.evaluation.results import Conditions, Interval
from rlprune.utils.json_codec import JsonResult

Deploy = Literal["dynamic", "static", "int8", "dense"]
"""What to deploy: a network that decides per image, one small network, eight-bit integers, or what there is."""


@dataclass(frozen=True, kw_only=True)
class GoalResult(JsonResult):
    """What was asked for; as `rlprune.optimization.goal.Goal` has it.

    Attributes:
        text: it in words.
        max_drop: points that may be lost; None where that was not bounded.
        min_speedup: over the fastest dense row.
        max_ms: of a batch.
        max_macs: share of the dense network's.
        batch: images at once.
        backend: `onnxruntime` or `pytorch`.
    """

    text: str
    max_drop: float | None = None
    min_speedup: float | None = None
    max_ms: float | None = None
    max_macs: float | None = None
    batch: int
    backend: str


@dataclass(frozen=True, kw_only=True)
class CheckResult(JsonResult):
    """What was found before anything long began.

    Attributes:
        lines: what is printed, a line each: network and weights, accuracy, images, what can be pruned, time.
        warnings: what may make the result worth less, a line each.
        network: the network's name.
        data: where the images are from.
        classes: their names.
        image_shape: (C, H, W).
        preprocessing: how pictures are prepared, in words.
        n_images: of each part: network, policy, validation, test.
        accuracy: of the network as it is, on the validation images; None if it has yet to be trained.
        test_is_part_of_training_folder: whether the test images are a random share of a folder that the network, which
            had been trained before, may have been trained on; None in reports that do not say so.
        always_runs: share of the dense network's MACs that every image costs, whatever is pruned.
        dense_macs: multiply-adds of the network for one image.
        dense_params: its parameters.
        seconds: that all will take, about.
    """

    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    network: str
    data: str
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    preprocessing: str
    n_images: dict[str, int]
    accuracy: float | None = None
    test_is_part_of_training_folder: bool | None = None
    always_runs: float
    dense_macs: int
    dense_params: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Row(JsonResult):
    """A network in the table of the verdict.

    Attributes:
        name: `dense`, `dense folded`, `dense onnxruntime`, `dense int8`, `static`, `static int8`, `cascade`, `rlprune`,
            `rlprune int8`.
        title: what the table calls it.
        backend: `pytorch` or `onnxruntime`.
        kind: what is deployed if this row is: `dense`, `int8`, `static` or `dynamic`.
        accuracy: top-1 on the test images.
        accuracy_interval: of 95 % (Wilson's).
        drop: points lost on the test images against the network as it was; below 0 if it is better.
        drop_interval: of 95 %, for the same images answered by both.
        macs_share: mean MACs over the dense network's, every pass and decision counted.
        ms: median milliseconds of a batch of the goal's size.
        ms_low: lower quartile.
        ms_high: upper quartile.
        speedup: over the fastest row of the network as it was, in float32.
        validation_drop: points lost on the validation images, by which the choice was made.
        meets: whether its figures on the test images meet the goal.
    """

    name: str
    title: str
    backend: str
    kind: str
    accuracy: float
    accuracy_interval: Interval
    drop: float
    drop_interval: Interval
    macs_share: float
    ms: float
    ms_low: float
    ms_high: float
    speedup: float
    validation_drop: float
    meets: bool


@dataclass(frozen=True, kw_only=True)
class Point(JsonResult):
    """A point of a curve that a network could be run at, on the validation images.

    Attributes:
        name: whose: `rlprune`, `cascade`, `static`; `dense` is the network as it was.
        macs_share: mean MACs over the dense network's.
        accuracy: top-1 on the validation images.
        chosen: whether it is the one in the table.
    """

    name: str
    macs_share: float
    accuracy: float
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class ClassCost(JsonResult):
    """What the test images of a class cost with the row `rlprune`.

    Attributes:
        name: of the class.
        n_images: of it, among the test images.
        accuracy: of `rlprune` on them.
        dense_accuracy: of the network as it was.
        macs_share: their mean MACs over the dense network's.
    """

    name: str
    n_images: int
    accuracy: float
    dense_accuracy: float
    macs_share: float


@dataclass(frozen=True, kw_only=True)
class Bounds(JsonResult):
    """What bounds the saving, in figures.

    Attributes:
        stem_share: MACs of the first layers, which every image runs, over the dense network's.
        always_runs: MACs of the cheapest slice in use, which every image runs through, over the dense network's.
        narrowest_ms_share: time of that slice over that of the network as it was in its fastest form: much more than
            its MACs where layers are too narrow for the processor to gain.
        decision_ms: milliseconds that the row `rlprune` takes for a batch beside those of its slices: deciding, sorting
            images, starting one slice after the other.
    """

    stem_share: float
    always_runs: float
    narrowest_ms_share: float | None = None
    decision_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class OptimizeResult(JsonResult):
    """What an optimisation gives: `report.json`.

    Attributes:
        goal: what was asked for.
        reached: whether what is to be deployed meets the goal on the test images.
        deploy: what to deploy.
        deploy_row: name of its row.
        deploy_file: file of it, relative to the folder; None for a network as it was that ONNX cannot
            hold.
        dynamic_row: name of the row that `deploy/dynamic.onnx` and `deploy/bundle` hold: `rlprune`, or `cascade` where
            that is to be deployed; reports of earlier versions do not say it.
        sentences: the verdict: whether the goal was reached, whether that can be told from so few test images, what to
            deploy and why.
        advice: where the goal was not reached: the nearest point, what bounds it, which options would help.
        rows: the networks compared.
        left_out: rows that could not be made, with the reason.
        points: the curves on the validation images, by which the choice was made.
        bounds: what bounds the saving.
        check: what was found before it began.
        plan: how it was trained; `rlprune.optimization.plan.Plan` says what the keys are.
        classes: what each class costs.
        easiest: test images that cost least, by their number.
        hardest: those that cost most.
        n_needed: test images that it would take to tell whether the goal's drop is met, by the row nearest to the goal
            where the network is left as it is; None if these are enough.
        seed: of everything but times.
        seconds: that everything took until this was written, reading and the check included, interruptions left out.
        seconds_estimated: what was said before it began.
        conditions: what times were measured with.
        version: of rlprune.
    """

    goal: GoalResult
    reached: bool
    deploy: str
    deploy_row: str
    deploy_file: str | None = None
    dynamic_row: str | None = None
    sentences: tuple[str, ...]
    advice: tuple[str, ...]
    rows: tuple[Row, ...]
    left_out: dict[str, str]
    points: tuple[Point, ...]
    bounds: Bounds
    check: CheckResult
    plan: dict[str, float]
    classes: tuple[ClassCost, ...]
    easiest: tuple[int, ...]
    hardest: tuple[int, ...]
    n_needed: int | None = None
    seed: int
    seconds: float
    seconds_estimated: float
    conditions: Conditions = field()
    version: str

    def row(self, name: str) -> Row | None:
        """A row of the table; None if it could not be made."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def verdict(self) -> str:
        """The sentences, a line each."""
        return "\n".join(self.sentences)

    def __str__(self) -> str:
        """The verdict."""
        return self.verdict

    def __repr__(self) -> str:
        """The goal and what came of it, in a line."""
        reached = "reached" if self.reached else "not reached"
        return f"OptimizeResult(goal={self.goal.text!r}, {reached}, deploy={self.deploy!r})"


REPORT = "report.json"


def load_result(folder: str | Path) -> OptimizeResult:
    """Read the result in the folder of an optimisation.

    Raises:
        RLPruneError: there is none, or it cannot be read.
    """
    return OptimizeResult.load(Path(folder) / REPORT)
