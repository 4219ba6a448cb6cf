"""Time of a dynamic network beside others: all rows in one run, interleaved, with medians and spread."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from statistics import median, quantiles

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.evaluation.results import Conditions
from rlprune.evaluation.runners import DEFAULT_ROWS, check_rows, prepare_runners
from rlprune.evaluation.timing.rivals import RowImages, rival_makers
from rlprune.evaluation.timing.runner import Runner
from rlprune.evaluation.timing_results import AdaptBenchmark, BenchmarkResult, BenchmarkRow
from rlprune.metrics import wilson_interval
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import AdaptSettings
from rlprune.utils.finite import check_whole
from rlprune.utils.timing import Turns, interleaved

_PER_TURN = 32
"""Images that a row runs in each of its turns, at least: what a dynamic network takes differs from image to image, and
the median over single images would leave out what the hard ones cost."""
_AT_ONCE = 256


@torch.inference_mode()
def bench(
    dynamic: DynamicCNN,
    images: Tensor,
    batches: Sequence[int],
    seconds: float = 5.0,
    rows: Sequence[str] = DEFAULT_ROWS,
    row_images: RowImages | None = None,
) -> BenchmarkResult:
    """Time a dynamic network against the dense one and others.

    Every batch holds other images, so that the dynamic network meets the mixture that its policy makes of them. Small
    batches are run several in a turn, whose mean counts once.

    Args:
        dynamic: the network with its policy.
        images: real ones, uint8 (N, C, H, W); what is spent depends on them.
        batches: batch sizes.
        seconds: per batch size.
        rows: what is timed; `rlprune.evaluation.runners.prepare_runners` lists the names. One that cannot be made here
            is left out, and a line says why.
        row_images: the images with their labels, for the accuracy of each row; what rows of int8 and cascades are made
            with; and static networks, which are timed, too.

    Raises:
        RLPruneError: a batch size below 1 or above the number of images, an unknown row, or none that can be made.
    """
    check_rows(rows)
    check_whole(**{f"batches[{i}]": batch for i, batch in enumerate(batches)})
    if not batches or not 1 <= min(batches) <= max(batches) <= len(images):
        raise RLPruneError(
            f"batch sizes are {list(batches)}; from 1 to {len(images)}, the number of images, is allowed"
        )
    dense_macs = float(dynamic.prices.dense.macs)
    spent = torch.cat([dynamic(part).macs for part in images.split(256)]).double()
    mean_macs = {batch: spent[: len(images) // batch * batch].mean().item() for batch in batches}
    with torch.inference_mode(False):
        share = spent.mean().item() / dense_macs
        rivals = dict(rival_makers(dynamic, row_images))
        runners, left_out = prepare_runners(dynamic, share, rows, images[: batches[0]], rivals)
    normalised = dynamic.normalise(images)
    right = {} if row_images is None else _n_right(runners, images, normalised, row_images.test.labels)
    timed: list[BenchmarkRow] = []
    for batch in batches:
        found = _timed(runners, images, normalised, batch, seconds, mean_macs[batch])
        timed += [_with_accuracy(row, right.get(row.name), len(images)) for row in found]
    return BenchmarkResult(
        rows=tuple(timed),
        speedup={
            name: {batch: _speedup(timed, name, batch, runner.backend) for batch in batches}
            for name, runner in runners.items()
            if runner.dynamic
        },
        speedup_overall={
            name: {batch: _speedup(timed, name, batch) for batch in batches}
            for name, runner in runners.items()
            if runner.dynamic
        },
        left_out=left_out or None,
        macs_ratio={batch: dense_macs / macs for batch, macs in mean_macs.items()},
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        n_images=None if row_images is None else len(images),
        versions=_versions(runners),
        conditions=Conditions.now(dynamic.device),
    )


def _n_right(runners: Mapping[str, Runner], images: Tensor, normalised: Tensor, labels: Tensor) -> dict[str, int]:
    """How many of the test images each row is right about; rows of one network are all right about the same."""
    of_network: dict[str, int] = {}
    for runner in runners.values():
        if runner.network not in of_network:
            parts = (images if runner.dynamic else normalised).split(_AT_ONCE)
            found = torch.cat([runner.labels(part) for part in parts])
            of_network[runner.network] = int((found == labels).sum())
    return {name: of_network[runner.network] for name, runner in runners.items()}


def _with_accuracy(row: BenchmarkRow, n_right: int | None, n_images: int) -> BenchmarkRow:
    if n_right is None:
        return row
    return replace(row, accuracy=n_right / n_images, accuracy_interval=wilson_interval(n_right, n_images))


def _versions(runners: Mapping[str, Runner]) -> dict[str, str] | None:
    """Of what rows need beside torch."""
    packages = ["onnx", "onnxruntime"] if any(runner.backend == "onnxruntime" for runner in runners.values()) else []
    packages += ["torch-pruning"] if "static" in runners else []
    return {name: version(name) for name in packages} or None


def _timed(
    runners: Mapping[str, Runner], images: Tensor, normalised: Tensor, batch: int, seconds: float, dynamic_macs: float
) -> list[BenchmarkRow]:
    """A row for every runner at one batch size."""
    n_batches = -(-_PER_TURN // batch)
    turns = {
        name: Turns(runner.run, images if runner.dynamic else normalised, batch, n_batches)
        for name, runner in runners.items()
    }
    times = interleaved(turns, seconds, warm={name: turn.warm for name, turn in turns.items()})
    return [
        _row(
            name,
            runner.backend,
            batch,
            [ms / n_batches for ms in times[name]],
            dynamic_macs if math.isnan(runner.macs) else runner.macs,
        )
        for name, runner in runners.items()
    ]


def bench_adapt(
    elastic: ElasticCNN, data: ImageSet, batch: int = 128, seconds: float = 20.0, device: str = "cpu"
) -> AdaptBenchmark:
    """Time training steps under uniform profiles: what is cheap to run should be as cheap to train.

    Args:
        elastic: the network; it is trained on, so pass a copy of what is still needed.
        data: images.
        batch: images per step.
        seconds: of timing for all rows together.
        device: where to train.

    Raises:
        RLPruneError: a batch size below 2 or above the number of images.
    """
    check_whole(batch=batch)
    if not 2 <= batch <= len(data):
        raise RLPruneError(f"the batch size is {batch}; from 2 to {len(data)}, the number of images, is allowed")
    settings = AdaptSettings(batch_size=batch, device=device)
    elastic.to(device=settings.device, memory_format=settings.memory_format).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(elastic.parameters(), lr=1e-3, momentum=settings.momentum, nesterov=True)
    images = data.normalised(slice(0, batch)).to(settings.device, memory_format=settings.memory_format)
    labels = data.labels[:batch].to(settings.device)

    def step(profile: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with settings.autocast():
            logits = elastic(images, profile)
        cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device != "cpu":
            next(elastic.parameters()).flatten()[0].item()  # waits until all is done

    levels = range(elastic.n_levels - 1, elastic.narrowest - 1, -1)
    profiles = {f"keep ratio {elastic.keep_ratios[level]:g}": elastic.uniform(level) for level in levels}
    times = interleaved({name: partial(step, profile) for name, profile in profiles.items()}, seconds, 3)
    medians = {name: median(each) for name, each in times.items()}
    cost = Cost(elastic)
    macs = {name: float(cost.of(profile).macs) for name, profile in profiles.items()}
    widest = next(iter(profiles))
    return AdaptBenchmark(
        rows=tuple(
            BenchmarkRow(name=name, batch=batch, ms=ms, images_per_s=batch / ms * 1e3, macs=macs[name])
            for name, ms in medians.items()
        ),
        step_share={name: ms / medians[widest] for name, ms in medians.items()},
        macs_share={name: value / macs[widest] for name, value in macs.items()},
        conditions=Conditions.now(device),
    )


def _speedup(rows: Sequence[BenchmarkRow], name: str, batch: int, backend: str | None = None) -> float | None:
    """Of a row over the best dense row of its batch size, its number format and a backend, or of any backend."""
    at_batch = [row for row in rows if backend in (None, row.backend) and row.batch == batch]
    (own,) = (row for row in at_batch if row.name == name)
    dense = [row.ms for row in at_batch if row.name.startswith("dense") and row.int8 == own.int8]
    return min(dense) / own.ms if dense else None


def _row(name: str, backend: str, batch: int, times: list[float], macs: float) -> BenchmarkRow:
    low, middle, high = quantiles(times, n=4)
    return BenchmarkRow(
        name=name,
        backend=backend,
        batch=batch,
        ms=middle,
        ms_low=low,
        ms_high=high,
        images_per_s=batch / middle * 1e3,
        macs=macs,
    )
