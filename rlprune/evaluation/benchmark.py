"""Time of a dynamic network beside others: all rows in one run, interleaved, with medians and spread."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from statistics import median, quantiles

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.streaming.stream import Stream
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.evaluation.results import Conditions
from rlprune.evaluation.runners import DEFAULT_ROWS, Runner, check_rows, prepare_runners
from rlprune.evaluation.timing_results import (
    AdaptBenchmark,
    BenchmarkResult,
    BenchmarkRow,
    CallersBenchmark,
    CallersRow,
)
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import AdaptSettings
from rlprune.utils.finite import check_numbers, check_whole
from rlprune.utils.timing import Turns, interleaved

_PER_TURN = 32
"""Images that a row runs in each of its turns, at least: what a dynamic network takes differs from image to image, and
the median over single images would leave out what the hard ones cost."""


@torch.inference_mode()
def bench(
    dynamic: DynamicCNN,
    images: Tensor,
    batches: Sequence[int],
    seconds: float = 5.0,
    rows: Sequence[str] = DEFAULT_ROWS,
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
        runners, left_out = prepare_runners(dynamic, share, rows, images[: batches[0]])
    normalised = dynamic.normalise(images)
    timed: list[BenchmarkRow] = []
    for batch in batches:
        timed += _timed(runners, images, normalised, batch, seconds, mean_macs[batch])
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
        conditions=Conditions.now(dynamic.device),
    )


def _timed(
    runners: Mapping[str, Runner], images: Tensor, normalised: Tensor, batch: int, seconds: float, dynamic_macs: float
) -> list[BenchmarkRow]:
    """A row for every runner at one batch size."""
    n_batches = -(-_PER_TURN // batch)
    turns = {
        name: Turns(runner.run, images if runner.dynamic else normalised, batch, n_batches)
        for name, runner in runners.items()
    }
    times = interleaved(turns, seconds)
    return [
        _row(
            name,
            runner.backend,
            batch,
            [ms / n_batches for ms in times[name]],
            dynamic_macs if runner.dynamic else runner.macs,
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


_TURNS = 3
"""How often each network takes its turn under callers, so that other load on the machine affects both alike."""


def bench_callers(
    dynamic: DynamicCNN,
    images: Tensor,
    n_callers: int = 64,
    seconds: float = 5.0,
    *,
    max_batch: int | None = None,
    max_wait_ms: float = 5.0,
) -> CallersBenchmark:
    """Let threads send single images through a stream, to a dynamic network and to the dense one in turns.

    Args:
        dynamic: the network with its policy.
        images: real ones, uint8 (N, C, H, W); each caller begins with another one of them.
        n_callers: how many threads; each sends the next image as soon as one is answered.
        seconds: for each of the two networks.
        max_batch: as for `Stream`.
        max_wait_ms: as for `Stream`.

    Raises:
        RLPruneError: one of the numbers cannot be.
    """
    check_whole(n_callers=n_callers, least=1, most=4096)
    check_numbers(seconds=seconds, least=0, most=86_400)
    models = {"dense": _dense(dynamic), "dynamic": dynamic}
    spent = torch.cat([dynamic(part).macs for part in images.split(256)]).double().mean().item()
    macs = {"dense": float(dynamic.prices.dense.macs), "dynamic": spent}
    with ExitStack() as stack:
        streams = {name: stack.enter_context(Stream(model, max_wait_ms, max_batch)) for name, model in models.items()}
        crowds = {name: _Crowd(stream, images, n_callers) for name, stream in streams.items()}
        for _ in range(_TURNS):
            for crowd in crowds.values():
                crowd.call(seconds / _TURNS)
        rows = {name: crowd.row(name, macs[name]) for name, crowd in crowds.items()}
    dense, ours = rows["dense"], rows["dynamic"]
    return CallersBenchmark(
        rows=(dense, ours),
        callers=n_callers,
        max_batch=streams["dynamic"].max_batch,
        max_wait_ms=max_wait_ms,
        speedup=ours.images_per_s / dense.images_per_s,
        macs_ratio=dense.macs / ours.macs,
        conditions=Conditions.now(dynamic.device),
    )


def _dense(dynamic: DynamicCNN) -> DynamicCNN:
    """The same network, which runs all of itself for every image."""
    elastic = dynamic.elastic
    observer = Observer.without_features(elastic.n_classes, 1)
    actions = Actions.from_network(elastic, "profiles", elastic.full[None], 1)
    policy = Policy((observer.size, actions.n_outputs), "Tanh", observer, actions, elastic.full[None])
    how = {"max_batch": dynamic.max_batch, "dtype": dynamic.dtype}
    return DynamicCNN.for_images(elastic, policy, dynamic, dynamic.device, **how)


class _Crowd:
    """Threads that send single images, each the next one as soon as one is answered."""

    def __init__(self, stream: Stream, images: Tensor, n_callers: int) -> None:
        self._stream = stream
        self._images = images
        self._n_callers = n_callers
        self._ms: list[float] = []
        self._seconds = 0.0
        stream(images[:n_callers])  # which prepares what it needs

    def call(self, seconds: float) -> None:
        """Send images for some time, one from each caller at least."""
        begun = time.perf_counter()
        with ThreadPoolExecutor(self._n_callers) as callers:
            for took in callers.map(lambda caller: self._send(caller, begun + seconds), range(self._n_callers)):
                self._ms += took
        self._seconds += time.perf_counter() - begun

    def _send(self, number: int, end: float) -> list[float]:
        """What one caller sees: milliseconds until each answer."""
        took: list[float] = []
        now = time.perf_counter()
        while now < end or not took:
            number = (number + self._n_callers) % len(self._images)
            begun, _ = now, self._stream(self._images[number : number + 1])
            now = time.perf_counter()
            took.append(1000 * (now - begun))
        return took

    def row(self, name: str, macs: float) -> CallersRow:
        """What was measured."""
        p50, p99 = np.quantile(self._ms, (0.5, 0.99)).tolist()
        figures = self._stream.figures()
        return CallersRow(
            name=name,
            images_per_s=len(self._ms) / self._seconds,
            p50_ms=p50,
            p99_ms=p99,
            mean_bucket=figures.mean_bucket,
            wait_p50_ms=figures.wait_p50,
            wait_p99_ms=figures.wait_p99,
            macs=macs,
        )


def _speedup(rows: Sequence[BenchmarkRow], name: str, batch: int, backend: str | None = None) -> float | None:
    """Of a row over the best dense row of its batch size and a backend, or of any."""
    alike = {row.name: row.ms for row in rows if backend in (None, row.backend) and row.batch == batch}
    dense = [ms for other, ms in alike.items() if other.startswith("dense")]
    return min(dense) / alike[name] if dense else None


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
