"""What is found before anything long begins: accuracy, images, what can be pruned, how fast it could be, how long it takes.

Whatever cannot work is refused here, with the number that would do.
"""  # noqa: E501

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.graph import serialization
from rlprune.graph.folding import optimize_for_inference
from rlprune.metrics import wilson_interval
from rlprune.optimization.goal import Goal, PlanOptions, YesNo
from rlprune.optimization.pace import measure_pace
from rlprune.optimization.plan import MOST_MIRROR_LOSS, Pace, Plan, Size, make_plan
from rlprune.optimization.reports.found import Found, lines, warnings
from rlprune.optimization.result import CheckResult
from rlprune.optimization.subject import Subject
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import AdaptSettings
from rlprune.utils.timing import interleaved

N_CHECKED = 512
"""Images of each kind that the network is tried on, at most."""
_FEWEST = 64
"""And at least, however long an image takes."""
_SECONDS = 5.0
"""That each kind may take."""
_LEAST_SAVED = 0.6
"""Share of the multiply-adds that should be possible to save before residual streams are pruned, too."""
_SURE = 3.0
"""Standard errors from which a difference between two sets of images is taken for real."""
_SLACK = 1.2
"""How far a target of time may be beyond what the narrowest slice reaches before it is refused."""
_FASTER = 10.0
"""How many times as fast as PyTorch onnxruntime is thought to be at most, with small networks."""


@dataclass(frozen=True, eq=False)
class Examined:
    """What a check found.

    Attributes:
        elastic: the network, made elastic; it has the weights of the network as it was.
        residual: whether its residual streams can be pruned, too.
        size: of the task.
        plan: what is to be done.
        pace: of this machine.
        result: what is said of it.
    """

    elastic: ElasticCNN
    residual: bool
    size: Size
    plan: Plan
    pace: Pace
    result: CheckResult


def examine(subject: Subject, goal: Goal, options: PlanOptions, minutes: float, begun: Plan | None = None) -> Examined:
    """Look at network and images, time some steps, and plan.

    Args:
        subject: what is optimised.
        goal: what is asked for.
        options: what of the plan is given.
        minutes: time limit.
        begun: the plan of what is gone on with; what depends on how fast the machine is now is then not refused.

    Raises:
        ModelError: nothing of the network can be pruned, or it cannot be stored.
        RLPruneError: the goal cannot be reached by any slice; or the network is no better than guessing; or the time
            does not suffice for one epoch.
    """
    elastic, residual = _elastic(subject, options.residual)
    serialization.check_storable(elastic.slice(elastic.full))
    _check_options(options, elastic)
    cost = Cost(elastic)
    narrowest = elastic.uniform(0)
    always_runs = float(cost.of(narrowest).macs / cost.dense.macs)
    _check_macs(goal, always_runs)
    findings = _Findings(subject, elastic)
    times = _slice_times(elastic, subject.splits.validation, goal.batch)
    if begun is None:
        _check_time(goal, *times, always_runs)
    size = _size(subject, findings)
    settings = AdaptSettings(batch_size=min(options.batch_size or 128, size.n_network), padding=0)
    pace = measure_pace(elastic, subject.splits.network, settings)
    plan = begun or make_plan(options, size, pace, minutes)
    found = Found(
        accuracy=findings.accuracy,
        interval=findings.interval,
        n_tried=findings.n_tried,
        n_groups=elastic.n_groups,
        macs=int(cost.dense.macs),
        stem=float(cost.stem.macs / cost.dense.macs),
        always_runs=always_runs,
        whole_ms=times[0],
        narrowest_ms=times[1],
    )
    result = CheckResult(
        lines=(*subject.said, *lines(subject, goal, plan, found)),
        warnings=(*_told_apart(subject), *findings.warnings(), *warnings(subject.splits, goal, found)),
        network=subject.name,
        data=subject.data,
        classes=tuple(subject.splits.network.classes),
        image_shape=subject.image_shape,
        preprocessing=subject.splits.network.preprocessing.text,
        n_images={name: len(getattr(subject.splits, name)) for name in ("network", "policy", "validation", "test")},
        accuracy=findings.accuracy,
        test_is_part_of_training_folder=_test_may_be_seen(subject),
        always_runs=always_runs,
        dense_macs=int(cost.dense.macs),
        dense_params=int(cost.dense.params),
        seconds=plan.total,
    )
    return Examined(elastic, residual, size, plan, pace, result)


def _test_may_be_seen(subject: Subject) -> bool:
    """Whether a network that was trained elsewhere may have been trained on the test images."""
    return subject.trained and subject.splits.test_set_aside


def _told_apart(subject: Subject) -> Iterator[str]:
    """Where the test images come from, if that may make all figures too good."""
    if _test_may_be_seen(subject):
        yield (
            f"{subject.data} has no test part, so a random fifth of it tests: if your weights were trained on this "
            "folder, all figures are too good; put pictures that they have not seen into test/ beside train/, or name "
            "a part with test_split"
        )


def _elastic(subject: Subject, residual: YesNo) -> tuple[ElasticCNN, bool]:
    """The network made elastic, and whether residual streams are pruned: too where little can be saved without."""
    convert = partial(ElasticCNN.from_model, subject.model, subject.image_shape)
    if residual != "auto":
        return convert(residual=residual == "yes"), residual == "yes"
    plain = convert()
    if _saved(plain) >= _LEAST_SAVED:
        return plain, False
    more = convert(residual=True)
    return (more, True) if _saved(more) > _saved(plain) else (plain, False)


def _saved(elastic: ElasticCNN) -> float:
    cost = Cost(elastic)
    return 1 - float(cost.of(elastic.uniform(elastic.narrowest)).macs / cost.dense.macs)


class _Findings:
    """How a network does on some images of each kind.

    Args:
        subject: what is optimised.
        elastic: it, made elastic; at full width it computes the same.
    """

    def __init__(self, subject: Subject, elastic: ElasticCNN) -> None:
        self._trained = subject.trained
        self._n_classes = len(subject.splits.network.classes)
        if not subject.trained:
            self.accuracy: float | None = None
            self.interval = (0.0, 1.0)
            self.mirrored = True
            self.n_tried = N_CHECKED
            return
        run = optimize_for_inference(elastic.slice(elastic.full))
        splits = subject.splits
        n_tried = _n_within(run, splits.validation)
        chosen = splits.validation.subset(slice(0, n_tried))
        right, _ = _answers(run, chosen)
        self.accuracy = float(right.mean())
        self.interval = wilson_interval(int(right.sum()), len(right))
        mirrored, _ = _answers(run, chosen, mirror=True)
        self.mirrored = float(right.mean() - mirrored.mean()) <= MOST_MIRROR_LOSS
        guessing = 1 / self._n_classes
        if self.interval[0] <= guessing and self.interval[1] <= 1.5 * guessing:
            raise RLPruneError(
                f"the network is right on {100 * self.accuracy:.1f} % of {len(right)} images, no better than guessing "
                f"among {self._n_classes} classes: are the classes in its order, the weights its own, and the pictures "
                "prepared as it was trained (preprocess)?"
            )
        self.n_tried = len(right)
        self._policy = _answers(run, splits.policy.subset(slice(0, n_tried)))
        self._test = _answers(run, splits.test.subset(slice(0, n_tried)))

    def warnings(self) -> Iterator[str]:
        """Whether it has probably seen images that are to teach the decisions."""
        if not self._trained:
            return
        ours, others = self._policy[1], self._test[1]
        error = math.sqrt(float(ours.var() / len(ours) + others.var() / len(others)) + 1e-12)
        if min(len(ours), len(others)) >= 20 and float(others.mean() - ours.mean()) > _SURE * error:
            seen, unseen = (100 * float(right.mean()) for right, _ in (self._policy, self._test))
            yield (
                f"the network is right on {seen:.1f} % of the images that are to teach the decisions and on "
                f"{unseen:.1f} % of the test images: it has probably been trained on the former, where it is too sure; "
                "give a folder of images that it has not seen with --heldout"
            )


@torch.inference_mode()
def _n_within(run: nn.Module, images: ImageSet) -> int:
    """How many images a network can be tried on in the time for it."""
    pixels = images.normalised(slice(0, 8))
    run(pixels)
    start = time.perf_counter()
    run(pixels)
    per_image = (time.perf_counter() - start) / len(pixels)
    return int(min(N_CHECKED, max(_FEWEST, _SECONDS / per_image)))


@torch.inference_mode()
def _answers(run: nn.Module, images: ImageSet, *, mirror: bool = False) -> tuple[Tensor, Tensor]:
    """Whether it is right, and its loss, on images, float64 (N,) each."""
    logits = []
    for pixels, _ in images.batches(images.at_once):
        logits.append(run(pixels.flip(3) if mirror else pixels).float())
    found = torch.cat(logits)
    loss = F.cross_entropy(found, images.labels, reduction="none")
    return (found.argmax(1) == images.labels).double(), loss.double()


def _slice_times(elastic: ElasticCNN, images: ImageSet, batch: int) -> tuple[float, float]:
    """Milliseconds of a batch through the whole network and through its narrowest slice, in PyTorch."""
    pixels = images.normalised(torch.arange(batch) % len(images)).contiguous(memory_format=torch.channels_last)
    profiles = {"whole": elastic.full, "narrowest": elastic.uniform(0)}
    runs = {name: optimize_for_inference(elastic.slice(profile)) for name, profile in profiles.items()}
    with torch.inference_mode():
        times = interleaved({name: partial(run, pixels) for name, run in runs.items()}, 2.0)
    return median(times["whole"]), median(times["narrowest"])


def _check_options(options: PlanOptions, elastic: ElasticCNN) -> None:
    """Refuse options that would only fail once other things are trained."""
    side = max(elastic.image_shape[1:])
    if options.padding is not None and options.padding > side:
        raise RLPruneError(f"padding={options.padding}: images have {side} pixels a side; give a padding up to that")
    if options.n_candidates is not None and options.n_candidates < elastic.n_levels:
        raise RLPruneError(
            f"n_candidates={options.n_candidates}: one slice of each width is tried in any case; give "
            f"{elastic.n_levels} or more"
        )


def _check_macs(goal: Goal, always_runs: float) -> None:
    """Refuse a share of multiply-adds below what every image costs."""
    if goal.max_macs is not None and goal.max_macs < always_runs:
        raise RLPruneError(
            f"max_macs={goal.max_macs:g}: the narrowest slice of this network costs {always_runs:.3f} of its "
            f"multiply-adds; give {math.ceil(1000 * always_runs) / 1000:g} or more"
        )


def _check_time(goal: Goal, whole: float, narrowest: float, always_runs: float) -> None:
    """Refuse targets of time that are beyond the narrowest slice, by its time here and by its multiply-adds.

    Times are PyTorch's, of which a small network's are mostly overhead: onnxruntime may be faster by `_FASTER`.
    """
    most = _SLACK * max(whole / narrowest, 1 / always_runs)
    if goal.min_speedup is not None and goal.min_speedup > most:
        raise RLPruneError(
            f"min_speedup={goal.min_speedup:g}: the narrowest slice of this network is {whole / narrowest:.2g} times "
            f"as fast here at batch {goal.batch}, and costs {100 * always_runs:.0f} % of the multiply-adds, so nothing "
            f"made of it is so fast; give {math.floor(10 * most) / 10:g} or less"
        )
    least = narrowest / (_SLACK if goal.backend == "pytorch" else _FASTER)
    if goal.max_ms is not None and goal.max_ms < least:
        raise RLPruneError(
            f"max_ms={goal.max_ms:g}: the narrowest slice of this network takes {narrowest:.3g} ms here at batch "
            f"{goal.batch} in PyTorch; give {narrowest:.3g} or more"
        )


def _size(subject: Subject, findings: _Findings) -> Size:
    splits = subject.splits
    return Size(
        n_network=len(splits.network),
        n_policy=len(splits.policy),
        n_validation=len(splits.validation),
        n_test=len(splits.test),
        side=max(subject.image_shape[1:]),
        trained=subject.trained,
        mirrored=findings.mirrored,
    )
