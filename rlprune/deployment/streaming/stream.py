"""A network for many callers at once, whose images run together in full buckets."""

from __future__ import annotations

import os
import time
import weakref
from concurrent.futures import Future
from typing import Any, NoReturn

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.images import Images
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.prediction import Prediction
from rlprune.deployment.streaming.dynamic import DynamicEngine
from rlprune.deployment.streaming.figures import StreamFigures
from rlprune.deployment.streaming.request import Engine
from rlprune.deployment.streaming.whole import WholeEngine
from rlprune.deployment.streaming.worker import CLOSED, StreamWorker
from rlprune.errors import RLPruneError
from rlprune.utils.finite import check_numbers, check_whole
from rlprune.utils.process import ForkLock

_USUAL_BATCH = 64
"""Images of a full bucket, unless the network runs fewer at once."""


class Stream:
    """Predicts for many callers at once, whose images run together; those that go on to another pass wait for others.

    Images come one by one or in batches, from any number of threads or coroutines. Each gets what `model(images)` gives
    it: the same labels, profiles and costs; logits may differ in their last bits. A thread of the stream runs one
    bucket after another: images at the same point, which is the profile that they run next, whatever their pass, their
    budget and their caller. With an `OnnxCNN`, whose passes lie inside the file, whole images wait.

    A bucket is ready when it is full, or has four images that go on to another pass, or when its first image has waited
    `max_wait_ms` there. Of the ready ones those that go on run before new ones, and else the one whose first image came
    to the stream earliest. If none is ready, the largest one runs, so that an image that is alone never waits.

    Only where images were just answered, new ones are waited for while they follow within half a millisecond.

    Several streams may share a network. In a forked process a stream goes on, empty; it cannot be pickled. Use it as a
    context manager, or `close` it.

    Args:
        model: a `DynamicCNN` or an `OnnxCNN`.
        max_wait_ms: milliseconds, 0 or more, for which a bucket that is not full may be passed over for larger ones;
            new images besides for those that go on.
            More of it fills buckets, and lets images wait.
        max_batch: images of a full bucket; if None, 64, or `max_batch` of the network where that is less.
        max_waiting: images that may be accepted and not done; who gives more waits for room.

    Raises:
        RLPruneError: the model is something else, or has a limit; or one of the numbers cannot be.
    """

    def __init__(
        self,
        model: DynamicCNN | OnnxCNN,
        max_wait_ms: float = 5.0,
        max_batch: int | None = None,
        max_waiting: int = 1024,
    ) -> None:
        self._engine = _engine_of(model)
        check_numbers(max_wait_ms=max_wait_ms, least=0)
        check_whole(max_waiting=max_waiting, least=1)
        if max_batch is not None:
            check_whole(max_batch=max_batch, least=1)
        own = getattr(model, "max_batch", None)
        self.model = model
        self.max_wait_ms = max_wait_ms
        self.max_batch = max_batch or min(_USUAL_BATCH, own or _USUAL_BATCH)
        self.max_waiting = max_waiting
        self._lock = ForkLock()
        self._closed = False
        self._worker = self._started()

    def submit(
        self, images: Images, *, budget: float | None = None, timeout_ms: float | None = None
    ) -> Future[Prediction]:
        """Give images to the stream, which are copied; waits while there is no room for them.

        `asyncio.wrap_future` makes of the future what a coroutine can wait for. Cancelling it takes the images out
        before their next bucket. What is called when it is done runs in the thread of the stream, and should be short.

        Args:
            images: any number of them, as the network takes them.
            budget: mean share of the dense network's MACs that they may cost, as the network takes it.
            timeout_ms: milliseconds, above 0, in which they are to be done; if they are not, the future gets a
                `DeadlineError`, late by the time of one bucket at most.

        Returns:
            A future of the prediction, in the order of the images.

        Raises:
            DataError: images that the network does not take.
            DeadlineError: there was no room for them within `timeout_ms`.
            RLPruneError: a budget that the network does not take, or the stream is closed.
        """
        begun = time.monotonic()
        if self._closed:
            raise RLPruneError(CLOSED)
        if timeout_ms is not None:
            check_numbers(timeout_ms=timeout_ms, least=1e-3)
        return self._here().submit(self._engine.accept(images, budget), begun, timeout_ms).future

    def __call__(self, images: Images, *, budget: float | None = None, timeout_ms: float | None = None) -> Prediction:
        """Classify images, and wait for it; arguments as for `submit`.

        Raises:
            DataError: images that the network does not take.
            DeadlineError: they were not done within `timeout_ms`.
            NotFiniteError: the logits overflow the network's number format, or are NaN.
            RLPruneError: a budget that the network does not take, the stream is closed, or this is called in the thread
                of the stream, as from a callback of a future.
        """
        if self._worker.is_current:
            raise RLPruneError("a callback of a stream's future cannot wait for the same stream: use submit there")
        future = self.submit(images, budget=budget, timeout_ms=timeout_ms)
        try:
            return future.result()
        finally:
            future.cancel()  # where the caller is interrupted while it waits

    def figures(self) -> StreamFigures:
        """How many images are done, how many ran together, and how long they waited."""
        return self._here().figures()

    def close(self) -> None:
        """Finish what was accepted, and accept nothing more."""
        self._closed = True
        self._worker.end()
        self._worker.join()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        limits = f"max_wait_ms={self.max_wait_ms:g}, max_batch={self.max_batch}, max_waiting={self.max_waiting}"
        return f"Stream({limits}{', closed' if self._closed else ''}; {self.model!r})"

    def __reduce__(self) -> NoReturn:
        """Streams are not pickled or copied: other callers wait in them."""
        raise RLPruneError("a Stream cannot be pickled or copied: send its model, and make a Stream where it arrives")

    def _started(self) -> StreamWorker:
        worker = StreamWorker(self._engine, self.max_batch, self.max_wait_ms / 1000, self.max_waiting)
        weakref.finalize(self, worker.end).atexit = False
        return worker

    def _here(self) -> StreamWorker:
        """The worker of this process: a forked one has no threads but the one that forked it."""
        if self._worker.process != os.getpid() and not self._closed:
            with self._lock:
                if self._worker.process != os.getpid():
                    self._worker = self._started()
        return self._worker


def _engine_of(model: Any) -> Engine:
    if isinstance(model, OnnxCNN):
        return WholeEngine(model)
    if not isinstance(model, DynamicCNN):
        raise RLPruneError(f"a stream needs a DynamicCNN, such as rlprune.load gives, or an OnnxCNN; this is {model!r}")
    if model.is_limited:
        raise RLPruneError("this network has a limit, which is for single calls; give the network without it")
    return DynamicEngine(model)
