"""What is found before anything long begins: accuracy, images, what can be pruned, how fast it could be, how long it takes.

Whatever cannot work is refused here, with the number that would do.
"""  # noqa: E501

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import ModelError, RLPruneError
from rlprune.graph import serialization
from rlprune.graph.folding import optimize_for_inference
from rlprune.optimization.entry.examined import Examined
from rlprune.optimization.entry.exporting import ms_of_file
from rlprune.optimization.entry.pacing import measure_pace
from rlprune.optimization.entry.pricing import pricing_seconds
from rlprune.optimization.entry.trying import Findings
from rlprune.optimization.goal import Goal, PlanOptions, YesNo
from rlprune.optimization.plan import Plan, Size, make_plan
from rlprune.optimization.reports.found import Found, lines, warnings
from rlprune.optimization.result import CheckResult
from rlprune.optimization.subject import Subject
from rlprune.profiles.codebook import simple_profiles
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import AdaptSettings
from rlprune.utils.timing import interleaved

_LEAST_SAVED = 0.6
"""Share of the multiply-adds that should be possible to save before residual streams are pruned, too."""
_LARGE = 64
"""Pixels a side of images from which lower resolutions are looked at, too."""
_SLACK = 1.2
"""How far a target of time may be beyond what the narrowest slice reaches before it is refused."""
_FASTER = 10.0
"""How many times as fast as PyTorch onnxruntime is thought to be at most, with small networks."""


def examine(
    subject: Subject,
    goal: Goal,
    options: PlanOptions,
    minutes: float,
    begun: Plan | None = None,
    *,
    device: str = "cpu",
    since: float | None = None,
) -> Examined:
    """Look at network and images, time some steps, and plan.

    Args:
        subject: what is optimised.
        goal: what is asked for.
        options: what of the plan is given.
        minutes: time limit.
        begun: the plan of what is gone on with; what depends on how fast the machine is now is then not refused.
        device: where networks are trained.
        since: when reading began, by `time.monotonic`; None for now.

    Raises:
        ModelError: nothing of the network can be pruned, or it cannot be stored.
        RLPruneError: the goal cannot be reached by any slice; or the network is no better than guessing; or the time
            does not suffice for one epoch.
    """
    elastic, residual = _elastic(subject, options)
    serialization.check_storable(elastic.slice(elastic.full))
    _check_options(options, elastic, subject)
    cost = Cost(elastic)
    narrowest = elastic.uniform(0)
    always_runs = float(cost.of(narrowest).macs / cost.dense.macs)
    _check_macs(goal, always_runs)
    findings = Findings(subject, elastic, device)
    times = _slice_times(elastic, subject.splits.validation, goal.batch)
    if begun is None:
        _check_time(goal, *times, always_runs)
    dense_ms = times[0]
    piece: dict[str, float] = {}
    if goal.backend == "onnxruntime":
        dense_ms, piece["piece"] = ms_of_file(subject.name, elastic, subject.splits.validation, goal.batch)
    size = _size(subject, findings, elastic)
    settings = AdaptSettings(batch_size=min(options.batch_size or 128, size.n_network), padding=0, device=device)
    pace = replace(measure_pace(elastic, subject.splits.network, settings), **piece)
    pricing = pricing_seconds(goal, elastic, minutes)
    plan = begun or make_plan(options, size, pace, minutes, _seconds_since(since), pricing, goal.batch)
    found = Found(
        accuracy=findings.accuracy,
        interval=findings.interval,
        n_tried=findings.n_tried,
        n_groups=elastic.n_groups - elastic.resolution,
        resolution=elastic.resolution,
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
    asks_mirrored = not subject.trained and options.flip == "auto"
    return Examined(elastic, residual, size, plan, pace, dense_ms, asks_mirrored, result)


def _seconds_since(start: float | None) -> float:
    return 0.0 if start is None else time.monotonic() - start


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


def _elastic(subject: Subject, options: PlanOptions) -> tuple[ElasticCNN, bool]:
    """The network made elastic, and whether residual streams are pruned: too where little can be saved without."""
    convert = partial(_converted, subject, options.resolution)
    if options.residual != "auto":
        return convert(residual=options.residual == "yes"), options.residual == "yes"
    plain = convert(residual=False)
    if _saved(plain) >= _LEAST_SAVED:
        return plain, False
    more = convert(residual=True)
    return (more, True) if _saved(more) > _saved(plain) else (plain, False)


def _converted(subject: Subject, resolution: YesNo, *, residual: bool) -> ElasticCNN:
    """The network made elastic, its resolution, too, if that is asked for, or pays and is possible."""
    convert = partial(ElasticCNN.from_model, subject.model, subject.image_shape, residual=residual)
    if resolution == "yes":
        return convert(resolution=True)
    if resolution == "auto" and min(subject.image_shape[1:]) >= _LARGE:
        with contextlib.suppress(ModelError):  # it runs at one resolution alone; or the next line says what is wrong
            return convert(resolution=True)
    return convert()


def _saved(elastic: ElasticCNN) -> float:
    cost = Cost(elastic)
    return 1 - float(cost.of(elastic.uniform(elastic.narrowest)).macs / cost.dense.macs)


def _slice_times(elastic: ElasticCNN, images: ImageSet, batch: int) -> tuple[float, float]:
    """Milliseconds of a batch through the whole network and through its narrowest slice, in PyTorch."""
    pixels = images.normalised(torch.arange(batch) % len(images)).contiguous(memory_format=torch.channels_last)
    profiles = {"whole": elastic.full, "narrowest": elastic.uniform(0)}
    runs = {name: optimize_for_inference(elastic.slice(profile)) for name, profile in profiles.items()}
    with torch.inference_mode():
        times = interleaved({name: partial(run, pixels) for name, run in runs.items()}, 2.0)
    return median(times["whole"]), median(times["narrowest"])


def _check_options(options: PlanOptions, elastic: ElasticCNN, subject: Subject) -> None:
    """Refuse options that would do nothing, or only fail once other things are trained."""
    if subject.trained and options.pretrain_epochs is not None:
        raise RLPruneError(
            f"pretrain_epochs={options.pretrain_epochs}: this network has been trained, so that would do nothing; "
            "leave it out"
        )
    if not subject.trained and options.pretrain_epochs == 0:
        raise RLPruneError("pretrain_epochs=0: this network has random weights; give 1 or more, or its weights")
    side = max(elastic.image_shape[1:])
    if options.padding is not None and options.padding > side:
        raise RLPruneError(f"padding={options.padding}: images have {side} pixels a side; give a padding up to that")
    n_simple = len(simple_profiles(elastic))
    if options.n_candidates is not None and options.n_candidates < n_simple:
        each = "one slice of each width, and of each resolution," if elastic.resolution else "one slice of each width"
        raise RLPruneError(f"n_candidates={options.n_candidates}: {each} is tried in any case; give {n_simple} or more")


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


def _size(subject: Subject, findings: Findings, elastic: ElasticCNN) -> Size:
    splits = subject.splits
    return Size(
        n_network=len(splits.network),
        n_policy=len(splits.policy),
        n_validation=len(splits.validation),
        n_test=len(splits.test),
        side=max(subject.image_shape[1:]),
        trained=subject.trained,
        mirrored=findings.mirrored,
        resolution=elastic.resolution,
    )
