"""The thread that runs the buckets of a stream, and the door through which images come to it."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from typing import Any

from rlprune.deployment.prediction import Prediction
from rlprune.deployment.streaming.figures import StreamFigures, Tally
from rlprune.deployment.streaming.request import Engine, Found, Request, StreamedImage
from rlprune.deployment.streaming.scheduler import Bucket, Scheduler
from rlprune.errors import DeadlineError, RLPruneError

CLOSED = "this stream is closed: make another one, such as rlprune.Stream(model)"
Outcome = Hashable | Found | BaseException


class StreamWorker:
    """Runs images of many callers bucket by bucket, in a thread of its own.

    Args:
        engine: runs the buckets.
        max_batch: images of a full bucket.
        max_wait: seconds, see `Scheduler`.
        max_waiting: images that are accepted and not done, at most.
    """

    def __init__(self, engine: Engine, max_batch: int, max_wait: float, max_waiting: int) -> None:
        self.process = os.getpid()
        self._engine = engine
        self._max_waiting = max_waiting
        self._scheduler: Scheduler[StreamedImage] = Scheduler(max_batch, max_wait)
        self._tally = Tally()
        lock = threading.RLock()  # a garbage collector may call `end` in a thread that holds it
        self._work = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._line: deque[object] = deque()
        self._timed: set[Request] = set()
        self._n_inside = 0
        self._ending = False
        self._holding = False
        self._thread = threading.Thread(target=self._loop, name="rlprune stream", daemon=True)
        self._thread.start()
        _WORKERS.add(self)

    def submit(self, images: Sequence[tuple[Hashable, Any]], begun: float, timeout_ms: float | None) -> Request:
        """Let images wait for their buckets, as soon as there is room for them.

        Args:
            images: points and states that the engine gave.
            begun: when they came.
            timeout_ms: milliseconds from then on in which they are to be done; None for any time.

        Raises:
            DeadlineError: there was no room in time.
            RLPruneError: the stream is closed.
        """
        request = Request(len(images), begun, timeout_ms)
        known = weakref.ref(request)  # the future, which outlives it, must not keep it
        request.future.add_done_callback(lambda future: self._forget(future, known()))
        with self._work:
            self._enter(request)
            now = time.monotonic()
            for index, (point, state) in enumerate(images):
                self._scheduler.put(point, StreamedImage(request, index, state), begun, now, is_new=True)
            if request.deadline is not None:
                self._timed.add(request)
            if not (self._holding and self._scheduler.is_held(now)):  # to wake it for each image slows the callers down
                self._work.notify()
        return request

    def end(self) -> None:
        """Accept nothing more; what was accepted is finished."""
        if self.process == os.getpid():  # else the thread is another process's
            with self._work:
                self._ending = True
                self._work.notify_all()
                self._room.notify_all()

    def join(self) -> None:
        """Wait until all that was accepted is done, after `end`."""
        if self.process == os.getpid() and not self.is_current:
            self._thread.join()

    @property
    def is_current(self) -> bool:
        """Whether this is the thread that runs the buckets."""
        return threading.current_thread() is self._thread

    def figures(self) -> StreamFigures:
        """What was done so far."""
        with self._work:
            return self._tally.figures(self._n_inside)

    def _enter(self, request: Request) -> None:
        """Wait for room, behind those who came earlier; the lock is held."""
        self._line.append(request)
        try:
            while not self._ending and not self._may_enter(request):
                left = None if request.deadline is None else request.deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise DeadlineError(
                        f"{self._n_inside} images wait in this stream, and {self._max_waiting} may: there was no room "
                        f"for {request.n_left} more within {request.timeout_ms:g} ms; give them more time, come again "
                        "later, or raise max_waiting"
                    )
                self._room.wait(left)
            if self._ending:
                raise RLPruneError(CLOSED)
            self._n_inside += request.n_left
        finally:
            self._line.remove(request)
            self._room.notify_all()

    def _may_enter(self, request: Request) -> bool:
        """Whether it is a request's turn, and there is room; more images than are allowed enter if there are no others.

        The thread that makes room, in which callbacks of futures run, must not wait for it.
        """
        if self.is_current:
            return True
        room = self._n_inside + request.n_left <= self._max_waiting or not self._n_inside
        return room and self._line[0] is request

    def _forget(self, future: Future[Prediction], request: Request | None) -> None:
        """Take out what is left of a request whose caller has cancelled it."""
        if not future.cancelled():
            return
        future.set_running_or_notify_cancel()  # which tells those that wait for several futures
        with self._work:
            if request is not None and self._leave(request):
                self._drop()

    def _leave(self, request: Request) -> bool:
        """Let nothing more of a request run, and others in its place; whether it was not over. The lock is held."""
        if request.over:
            return False
        request.over = True
        self._timed.discard(request)
        self._n_inside -= request.n_left
        self._room.notify_all()
        return True

    def _drop(self) -> None:
        """Take out the images of requests that are over; the lock is held."""
        self._scheduler.drop(lambda image: image.request.over)

    def _loop(self) -> None:
        """Run buckets until the end."""
        while self._wait_for_work():
            self._step()

    def _wait_for_work(self) -> bool:
        """Whether some image waits now; false at the end."""
        with self._work:
            while not len(self._scheduler):
                if self._ending:
                    return False
                self._work.wait()
            return True

    def _step(self) -> None:
        """Run a bucket, after those whose time is over are taken out."""
        with self._work:
            late = self._late()
            bucket = self._scheduler.take(now := time.monotonic())
            alone = not len(self._scheduler)
            if bucket is None and not alone:
                self._holding = True
                self._work.wait(max(self._scheduler.held_until - now, 0.0))
                self._holding = False
        self._fail_late(late)
        if bucket is not None:
            self._work_on(bucket, alone)

    def _late(self) -> list[Request]:
        """The requests that are not done in time, of which nothing more runs; the lock is held."""
        now = time.monotonic()
        late = [request for request in self._timed if request.is_late(now)]
        if late:
            for request in late:
                self._leave(request)
            self._drop()
        return late

    def _fail_late(self, late: Sequence[Request]) -> None:
        for request in late:
            request.fail(
                DeadlineError(
                    f"{request.n_images} images were not done within {request.timeout_ms:g} ms, while "
                    f"{self._n_inside} others waited, and {self._max_waiting} may: give them more time, or send fewer"
                )
            )

    def _work_on(self, bucket: Bucket[StreamedImage], alone: bool) -> None:
        """Run a bucket, and pass on what came out."""
        for image, seconds in zip(bucket.images, bucket.waited, strict=True):
            image.waited += seconds
        try:
            outcomes = self._outcomes(bucket.point, bucket.images, alone)
        except BaseException as error:  # callers must not wait for ever, whatever it is
            outcomes = {image: error for image in bucket.images}
        with self._work:
            late = self._late()
            done, failed = self._sort(outcomes)
        for request in done:
            request.succeed()
        for request, reason in failed:
            request.fail(reason)
        self._fail_late(late)
        with self._work:
            self._scheduler.listen(time.monotonic())

    def _outcomes(self, point: Hashable, images: Sequence[StreamedImage], alone: bool) -> dict[StreamedImage, Outcome]:
        """What came out for each image; where a bucket fails, each half of its callers is tried."""
        try:
            found = self._engine.run(point, [image.state for image in images], alone=alone)
            return dict(zip(images, found, strict=True))
        except Exception as error:
            requests = list(dict.fromkeys(image.request for image in images))
            if len(requests) == 1:
                return dict.fromkeys(images, error)
        first = set(requests[: len(requests) // 2])
        halves = [[image for image in images if (image.request in first) is which] for which in (True, False)]
        return {image: outcome for half in halves for image, outcome in self._outcomes(point, half, False).items()}

    def _sort(
        self, outcomes: dict[StreamedImage, Outcome]
    ) -> tuple[list[Request], list[tuple[Request, BaseException]]]:
        """Let images that go on wait again; the requests that are done, and those that have failed.

        The lock is held.
        """
        now = time.monotonic()
        done: list[Request] = []
        failed: list[tuple[Request, BaseException]] = []
        waits = []
        for image, outcome in outcomes.items():
            request = image.request
            if request.over:
                continue
            if isinstance(outcome, BaseException):
                self._leave(request)
                failed.append((request, outcome))
            elif not isinstance(outcome, Found):
                self._scheduler.put(outcome, image, request.begun, now)
            else:
                request.note(image.index, outcome)
                waits.append(image.waited)
                self._n_inside -= 1
                if not request.n_left:
                    self._leave(request)
                    done.append(request)
        if failed:
            self._drop()
        if waits:
            self._room.notify_all()
        self._scheduler.expect(sum(request.n_images for request in done))
        self._tally.count(len(outcomes), waits)
        return done, failed


_WORKERS: weakref.WeakSet[StreamWorker] = weakref.WeakSet()


def _at_exit() -> None:
    """Finish what was accepted before the interpreter goes down, which would end the threads in the middle of it."""
    for worker in list(_WORKERS):
        worker.end()
        worker.join()


atexit.register(_at_exit)
