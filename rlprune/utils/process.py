"""What belongs to the process: freed memory that it keeps, its threads, locks that a fork makes anew, and values."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar, overload

import torch

T = TypeVar("T")

MOST_KEPT = 2**25
"""Size in bytes of the largest block that glibc can be made to keep."""


def keep_freed() -> None:
    """Make the C library keep freed memory, up to some 64 MiB, for the next allocation.

    glibc returns large blocks to the system, which clears every page again for the next batch; that can take longer
    than the computation that fills them. Freeing one large block raises the size up to which glibc keeps blocks (see
    `M_MMAP_THRESHOLD` in mallopt(3)). With another allocator, nothing changes.
    """
    # Some pages below the limit, since glibc's own header of the block counts too.
    torch.empty(MOST_KEPT - 2**16, dtype=torch.uint8)


@contextmanager
def on_threads(n: int | None) -> Iterator[None]:
    """Let PyTorch compute with so many threads within the block; with as many as it does otherwise if None."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_PATIENCE = 5.0
"""Seconds that a fork waits at most for each lock."""


class ForkLock:
    """A lock that no other thread holds while the process forks, and that is free in the child.

    A fork copies locks as they are. One that another thread holds at that moment stays held in the child for ever, and
    so do those of the libraries that run under it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._owner = None
        self._lock.release()

    def __reduce__(self) -> tuple[type[ForkLock], tuple[()]]:
        """What is pickled or copied: nothing; it arrives as a new lock."""
        return ForkLock, ()

    def wait(self, seconds: float) -> bool:
        """Take it within some seconds; whether that is so. A thread that holds it already does not take it again."""
        return self._owner != threading.get_ident() and self._lock.acquire(timeout=seconds)

    def renew(self) -> None:
        """Make it free, unless the thread that calls is the one that works under it."""
        if self._owner != threading.get_ident():
            self._lock = threading.Lock()
            self._owner = None


_LOCKS: weakref.WeakSet[ForkLock] = weakref.WeakSet()
_FORKING = threading.Lock()
_taken: list[ForkLock] = []


def _all_of(locks: weakref.WeakSet[ForkLock]) -> list[ForkLock]:
    """Those of a set to which another thread may add one at this moment."""
    while True:
        with suppress(RuntimeError):  # which then says that the set has changed
            return list(locks)


def _before_fork() -> None:
    """Wait until no other thread works under a lock; after some seconds fork all the same."""
    _FORKING.acquire(timeout=_PATIENCE)
    _taken.extend(lock for lock in _all_of(_LOCKS) if lock.wait(_PATIENCE))


def _after_fork_in_parent() -> None:
    """Let the others go on."""
    while _taken:
        _taken.pop().__exit__()
    if _FORKING.locked():
        _FORKING.release()


def _after_fork_in_child() -> None:
    """Free the locks, and compute in one thread, since torch's others do not exist here.

    A child that calls for OpenMP's threads waits for them for ever; torch's own loader sets one thread likewise.
    """
    global _FORKING
    _FORKING = threading.Lock()
    _taken.clear()
    locks = list(_LOCKS)
    for lock in locks:
        lock.renew()
    if locks:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class CachedProperty(Generic[T]):
    """A property that is computed when it is asked for first: `functools.cached_property` without a lock.

    Up to Python 3.11 that one holds a lock for all objects of a class while it computes. A process that another thread
    forks at that moment inherits it locked, and waits for ever. Here two threads may compute the same twice.

    Args:
        compute: the object -> the value.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> CachedProperty[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> CachedProperty[T] | T:
        if instance is None:
            return self
        value = self._compute(instance)
        instance.__dict__[self._name] = value  # found before this from now on, also where a dataclass is frozen
        return value
