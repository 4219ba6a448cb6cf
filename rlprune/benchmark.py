"""Latency and throughput, side by side: all rows in one run, interleaved, with medians and spread."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from rlprune.errors import RLPruneError
from rlprune.evaluate import conditions
from rlprune.runtime import DynamicCNN


def interleaved(
    rows: Mapping[str, Callable[[], object]], seconds: float, min_rounds: int = 5
) -> dict[str, list[float]]:
    """Time functions in turns, so that whatever else the machine does meets all of them alike.

    Args:
        rows: what to time, by name.
        seconds: how long to go on, all rows together.
        min_rounds: rounds to make however long they take.

    Returns:
        Milliseconds of every round, by name.
    """
    for run in rows.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in rows}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < min_rounds:
        for name, run in rows.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


@torch.inference_mode()
def bench(dynamic: DynamicCNN, images: Tensor, batches: Sequence[int], seconds: float = 5.0) -> dict[str, Any]:
    """Time a dynamic network against the dense one in both memory formats.

    Every batch is a new cut of the images, so that the dynamic network meets the mixture that its policy makes of them.

    Args:
        dynamic: the network with its policy.
        images: real ones, uint8 (N, C, H, W); what is spent depends on them.
        batches: batch sizes.
        seconds: per batch size.

    Returns:
        `rows` of {name, backend, batch, ms, ms_low, ms_high (quartiles), images_per_s, macs}; `speedup` per batch size,
        over the best dense row of the same backend; `macs_ratio`, dense over mean dynamic; and the conditions.

    Raises:
        RLPruneError: a batch size below 1 or above the number of images.
    """
    if not batches or not 1 <= min(batches) <= max(batches) <= len(images):
        raise RLPruneError(
            f"batch sizes are {list(batches)}; from 1 to {len(images)}, the number of images, is allowed"
        )
    rows: list[dict[str, Any]] = []
    speedup, macs_ratio = {}, {}
    full = dynamic.elastic.slice(dynamic.elastic.full)
    full_channels_last = copy.deepcopy(full).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    normalised = dynamic.normalise(images)
    normalised_channels_last = normalised.contiguous(memory_format=torch.channels_last)
    dense_macs = float(dynamic.prices.dense.macs)
    for batch in batches:
        macs = dynamic(images[: len(images) // batch * batch]).macs.double().mean().item()
        times = interleaved(
            {
                "dense": partial(_run, full, _Cuts(normalised, batch)),
                "dense channels_last": partial(_run, full_channels_last, _Cuts(normalised_channels_last, batch)),
                "dynamic": partial(_run, dynamic, _Cuts(images, batch)),
            },
            seconds,
        )
        rows += [_row(name, "pytorch", batch, times[name], macs if name == "dynamic" else dense_macs) for name in times]
        best = min(median(times[name]) for name in times if name != "dynamic")
        speedup[str(batch)] = best / median(times["dynamic"])
        macs_ratio[str(batch)] = dense_macs / macs
    return {"rows": rows, "speedup": speedup, "macs_ratio": macs_ratio, **conditions()}


class _Cuts:
    """Batches of a tensor, one after another, round and round."""

    def __init__(self, images: Tensor, batch: int) -> None:
        self.parts: list[Tensor] = [part for part in images.split(batch) if len(part) == batch]
        self.n = 0

    def next(self) -> Tensor:
        self.n += 1
        return self.parts[self.n % len(self.parts)]


def _run(network: Callable[[Tensor], object], cuts: _Cuts) -> object:
    return network(cuts.next())


def _row(name: str, backend: str, batch: int, times: list[float], macs: float) -> dict[str, Any]:
    low, middle, high = quantiles(times, n=4)
    return {
        "name": name,
        "backend": backend,
        "batch": batch,
        "ms": middle,
        "ms_low": low,
        "ms_high": high,
        "images_per_s": batch / middle * 1e3,
        "macs": macs,
    }
