"""Many callers at once: single images from many threads, to a dynamic network and to the dense one in turns."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.streaming.stream import Stream
from rlprune.evaluation.results import Conditions
from rlprune.evaluation.timing_results import CallersBenchmark, CallersRow
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.policy import Policy
from rlprune.utils.finite import check_numbers, check_whole

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
