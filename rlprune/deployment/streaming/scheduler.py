"""Which images run together next: queues at points, and one rule, without threads or a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_CLOSELY = 0.0005
"""Seconds within which new images follow one another where callers send the next ones as soon as they are answered."""
_ENOUGH = 4
"""Images that go on for which a call pays: fewer take about as long."""


@dataclass(frozen=True)
class Bucket(Generic[T]):
    """Images that run together.

    Attributes:
        point: where they waited: what they have in common.
        images: at least one of them, in the order in which they came.
        waited: seconds that each of them waited at this point.
    """

    point: Hashable
    images: list[T]
    waited: list[float]


@dataclass(frozen=True)
class _Waiting(Generic[T]):
    image: T
    begun: float
    since: float
    is_new: bool


class Scheduler(Generic[T]):
    """Lets images wait at points, and says which of them run next.

    A bucket is ready when it is full, or has four images that go on to another pass, or when its first image has waited
    `max_wait` there. Of the ready ones those that go on run before new ones, which become more meanwhile, and else the
    one whose first image has been on its way for longest. If none is ready, the largest one runs, as the processor
    would otherwise be idle. Only new images are waited for, as long as they follow one another closely, where as many
    have been answered since some last ran; for `max_wait` at most after those answers.

    So an image that is alone never waits. A small bucket is passed over for larger ones for `max_wait` at most, and new
    images besides for those that go on.

    Args:
        max_batch: images of a full bucket, 1 or more.
        max_wait: seconds, 0 or more.
    """

    def __init__(self, max_batch: int, max_wait: float) -> None:
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._queues: dict[Hashable, deque[_Waiting[T]]] = {}
        self._n_expected = 0
        self._heard = 0.0
        self._answered = 0.0

    def __len__(self) -> int:
        """How many images wait."""
        return sum(map(len, self._queues.values()))

    def put(self, point: Hashable, image: T, begun: float, now: float, *, is_new: bool = False) -> None:
        """Let an image wait.

        Args:
            point: where; images that wait at the same point can run together.
            image: the image.
            begun: when its caller gave it, in seconds.
            now: the time, in seconds.
            is_new: whether it comes from its caller.
        """
        self._queues.setdefault(point, deque()).append(_Waiting(image, begun, now, is_new))
        if is_new:
            if now - self._heard > self._max_wait:
                self._n_expected = 0
            self._n_expected -= 1
            self._heard = now

    def expect(self, n_images: int) -> None:
        """Note that so many more images are being answered, whose callers may send others at once."""
        self._n_expected = max(self._n_expected, 0) + n_images

    def listen(self, now: float) -> None:
        """Note that they are answered, at a time in seconds."""
        self._heard = self._answered = now

    def take(self, now: float) -> Bucket[T] | None:
        """Take the images that run next; None if no image waits, or the next ones do so until `held_until`.

        Args:
            now: the time, in seconds.
        """
        point = self._next(now)
        if point is None:
            return None
        queue = self._queues[point]
        taken = [queue.popleft() for _ in range(min(len(queue), self._max_batch))]
        if taken[-1].is_new:
            self._n_expected = 0
        if not queue:
            del self._queues[point]
        return Bucket(point, [each.image for each in taken], [now - each.since for each in taken])

    @property
    def held_until(self) -> float:
        """The time until which new images are waited for, in seconds."""
        return min(self._heard + _CLOSELY, self._answered + self._max_wait) if self._n_expected > 0 else 0.0

    def is_held(self, now: float) -> bool:
        """Whether the images that run next are such as new ones are waited for, at a time in seconds."""
        return len(self._queues) > 0 and self._next(now) is None

    def drop(self, gone: Callable[[T], bool]) -> None:
        """Take out images wherever they wait.

        Args:
            gone: which ones.
        """
        for point, queue in [*self._queues.items()]:
            kept = deque(each for each in queue if not gone(each.image))
            if kept:
                self._queues[point] = kept
            else:
                del self._queues[point]

    def _next(self, now: float) -> Hashable | None:
        """The point whose images run next."""
        if not self._queues:
            return None
        ready = [(point, queue) for point, queue in self._queues.items() if self._is_ready(queue, now)]
        if ready:
            point, queue = min(ready, key=lambda each: (each[1][0].is_new, each[1][0].begun))
        else:
            point, queue = max(self._queues.items(), key=lambda each: (len(each[1]), -each[1][0].begun))
        may_grow = queue[-1].is_new and len(queue) < self._max_batch
        return None if may_grow and now < self.held_until else point

    def _is_ready(self, queue: deque[_Waiting[T]], now: float) -> bool:
        enough = self._max_batch if queue[0].is_new else min(_ENOUGH, self._max_batch)
        return len(queue) >= enough or now - queue[0].since >= self._max_wait
