"""One process at a time: whoever writes a file or a folder holds it, and a second one is refused at once."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from rlprune.errors import InUseError
from rlprune.utils.files import writing

_PATIENCE = 1.0
"""Seconds in which a process that has just begun says who it is."""


@contextmanager
def hold(out: Path, *, inside: bool = False) -> Iterator[None]:
    """Hold a file or folder for this process while the block runs; the system lets go of it for a process that dies.

    The thread that holds it may hold it again.

    Args:
        out: what is written.
        inside: it is a folder that is filled, and has the lock in it; else the lock is beside it, with a dot before its
            name. Missing folders are created; an empty one that was is removed again.

    Raises:
        InUseError: another process, or another thread, holds it; the message names it.
        WriteError: there is no room for it, or it may not be written.
    """
    path = (out / ".lock" if inside else out.with_name(f".{out.name}.lock")).resolve()
    made = inside and not out.exists()
    with writing(out):
        path.parent.mkdir(parents=True, exist_ok=True)
    owner = path.with_suffix(".owner.json")
    lock = FileLock(path, timeout=0, is_singleton=True)
    with writing(out):
        try:
            _acquire(lock, path)
        except Timeout:
            raise InUseError(f"{out} is in use by {_named(owner)}; let that end, or name another one") from None
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            with writing(out):
                owner.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        if outermost:
            owner.unlink(missing_ok=True)
            with suppress(OSError):  # Windows removes no file that is open
                path.unlink()
            if made and not any(path.parent.iterdir()):  # a start that failed leaves no empty folder
                path.parent.rmdir()
        lock.release()


def _acquire(lock: BaseFileLock, path: Path) -> None:
    """Acquire a lock whose file is in place: one that was opened in the moment of its removal holds nothing."""
    lock.acquire()
    while not path.exists():
        lock.release()
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()


def _named(owner: Path) -> str:
    """The process that holds something, in words."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            found = json.loads(owner.read_text())
            return f"process {found['process']} on {found['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return "another process"
