"""What a network under load must hold, each as a figure and a count of faults: `tests/load.py` runs them at length."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlprune.deployment.controller import Controller
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.prediction import Prediction
from rlprune.storage.bundle import load

Model = Callable[..., Prediction]
SIZES = (1, 3, 16, 2, 33)
PATIENCE = 20.0
"""Seconds after which a child hangs."""


class Bar(NamedTuple):
    """What was looked at, the figures, and how much of it was wrong."""

    name: str
    figures: str
    n_faults: int


class Work:
    """Calls of mixed batches and budgets, and what each gives when they run one after the other.

    Args:
        model: what is called.
        images: what it is called with, uint8 (N, C, H, W).
        budgets: that the calls take turns with; none for a model that takes none.
    """

    def __init__(self, model: Model, images: Tensor, budgets: tuple[float, ...] = ()) -> None:
        self.model = model
        self.images = images
        self.options: list[dict[str, float]] = [{"budget": each} for each in budgets] or [{}]
        self.n_kinds = len(SIZES) * len(self.options)
        self.expected = [self.call(kind) for kind in range(self.n_kinds)]

    def call(self, kind: int) -> Prediction:
        size = SIZES[kind % len(SIZES)]
        return self.model(self.images[:size], **self.options[kind // len(SIZES) % len(self.options)])

    def wrong(self, kind: int, *, exact: bool = True) -> int:
        """1 if a call gives something else than it did alone."""
        found, expected = self.call(kind % self.n_kinds), self.expected[kind % self.n_kinds]
        close = torch.equal if exact else lambda a, b: torch.allclose(a, b, atol=1e-5)
        same = torch.equal(found.profiles, expected.profiles) and torch.equal(found.macs, expected.macs)
        return int(not (same and close(found.probabilities, expected.probabilities)))


def in_threads(name: str, work: Work, n_threads: int, n_calls: int) -> Bar:
    """Threads that call at once get what they get alone."""
    wrong, errors = [0] * n_threads, []

    def run(index: int) -> None:
        try:
            wrong[index] = sum(work.wrong(7 * index + call) for call in range(n_calls))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = f"{n_threads} threads x {n_calls} calls, {sum(wrong)} differ, {len(errors)} raise"
    return Bar(name, figures, sum(wrong) + len(errors))


def controller_in_threads(
    name: str, dynamic: DynamicCNN, images: Tensor, target: float, n_threads: int, n_calls: int
) -> Bar:
    """A controller that threads share counts every image once, at its cost, and holds its target."""
    controller, costs = Controller(dynamic, macs=target, horizon=200), [0.0] * n_threads

    def run(index: int) -> None:
        for call in range(n_calls):
            start = (index + 5 * call) % (len(images) - 8)
            predicted = controller(images[start : start + 8])
            costs[index] += float(predicted.macs.double().sum() / dynamic.prices.dense.macs)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held, n_images = controller.held, 8 * n_threads * n_calls
    faults = (held.n_images != n_images) + (abs(held.mean - sum(costs) / n_images) > 1e-9)
    figures = f"{held.n_images} of {n_images} images counted, mean {held.mean:.4f} for a target of {target}"
    return Bar(name, figures, faults)


def forks(name: str, work: Work, n_forks: int, n_busy: int = 2) -> Bar:
    """Children that are forked while threads predict end, and predict alike."""
    stop = threading.Event()

    def busy(kind: int = 0) -> None:
        while not stop.is_set():
            work.call(kind % work.n_kinds)
            kind += 1

    threads = [threading.Thread(target=busy, args=(index,)) for index in range(n_busy)]
    for thread in threads:
        thread.start()
    ended = []
    for n in range(n_forks):
        time.sleep(0.002 + n % 17 / 3000)
        child = os.fork()
        if not child:
            try:
                os._exit(work.wrong(n, exact=False))
            finally:
                os._exit(3)
        ended.append(_status(child))
    stop.set()
    for thread in threads:
        thread.join()
    hang = ended.count(None)
    wrong = sum(status not in (None, 0) for status in ended)
    return Bar(name, f"{n_forks} forks, {hang} hang, {wrong} fail or differ", hang + wrong)


def _status(child: int) -> int | None:
    """How a child ended; None if it had to be ended."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def workers(name: str, work: Work, method: str, n_workers: int, n_calls: int) -> Bar:
    """Worker processes that are given the network predict alike."""
    with multiprocessing.get_context(method).Pool(n_workers, torch.set_num_threads, (1,)) as pool:
        wrong = pool.starmap_async(_worker, [(work, index, n_calls) for index in range(n_workers)]).get(600)
        pool.close()  # what ends a pool at once is a signal, and a handler that raises is lost in what frees memory
        pool.join()
    return Bar(name, f"{n_workers} {method}ed workers x {n_calls} calls, {sum(wrong)} differ", sum(wrong))


def _worker(work: Work, index: int, n_calls: int) -> int:
    return sum(work.wrong(index + call, exact=False) for call in range(n_calls))


def memory_of(name: str, once: Callable[[int], Any], n_times: int, n_before: int) -> Bar:
    """Memory stays the same, to 1 %, while something is done again and again."""
    for n in range(n_before):
        once(n)
    before = resident()
    for n in range(n_times):
        once(n)
    after = resident()
    grown = after / before - 1
    figures = f"{n_times} times, {before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB after: {100 * grown:+.2f} %"
    return Bar(name, figures, int(grown > 0.01))


def resident() -> int:
    """Bytes of memory that the process has at the moment."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reload(folder: Path, images: Tensor) -> Callable[[int], Any]:
    """Loads a bundle, and predicts."""
    return lambda n: load(folder)(images[: 1 + n % 16])


def reopen(path: Path, images: Tensor) -> Callable[[int], Any]:
    """Opens an ONNX file, and predicts."""
    return lambda n: OnnxCNN(path, 1)(images[: 1 + n % 16])
