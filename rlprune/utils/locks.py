"""One process at a time: whoever writes a file or a folder holds it, and a second one is refused at once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from rlprune.errors import InUseError
from rlprune.utils.files import check_target_file, is_temporary, remove_leftovers, writing

_PATIENCE = 1.0
"""Seconds in which a process that has just begun says who it is."""


@contextmanager
def hold(out: Path, *, inside: bool = False, patience: float = 0.0) -> Iterator[None]:
    """Hold a file or folder for this process while the block runs; the system lets go of it for a process that dies.

    The thread that holds it may hold it again. What dead processes have left of it, hidden, is removed first.

    Args:
        out: what is written.
        inside: it is a folder that is filled, and has the lock in it; else the lock is beside it, with a dot before its
            name. Missing folders are created; those that stay empty are removed again.
        patience: seconds to wait for another one.

    Raises:
        InUseError: another process, or another thread, holds it; the message names it.
        WriteError: there is no room for it, or it may not be written.
    """
    path = (out / ".lock" if inside else out.with_name(f".{out.name}.lock")).resolve()
    made = [folder for folder in path.parents if not folder.exists()]
    with writing(out):
        path.parent.mkdir(parents=True, exist_ok=True)
    owner = path.with_suffix(".owner.json")
    lock = FileLock(path, timeout=0, is_singleton=True)
    with writing(out):
        try:
            _acquire(lock, path, patience)
        except Timeout:
            path.touch()  # or it says why there can be none
            raise InUseError(f"{out} is in use by {_named(owner)}; let that end, or name another one") from None
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            with writing(out):
                owner.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
            _tidy(_inside(out) if inside else _beside(out), path)
        yield
    finally:
        if outermost:
            owner.unlink(missing_ok=True)
            with suppress(OSError):  # Windows removes no file that is open
                path.unlink()
            with suppress(OSError):  # they are not empty
                for folder in made:  # a start that failed leaves none
                    folder.rmdir()
        lock.release()


@contextmanager
def hold_file(path: Path | None) -> Iterator[None]:
    """Hold a file that is written at the end of long work, if there is to be one; what is in its way is said at once.

    Raises:
        InUseError: another process, or another thread, holds it.
        WriteError: it may not be written.
    """
    if path is None:
        yield
        return
    check_target_file(path)
    with hold(path):
        yield


def _acquire(lock: BaseFileLock, path: Path, patience: float) -> None:
    """Acquire a lock whose file is in place: one that was opened in the moment of its removal holds nothing."""
    lock.acquire(timeout=patience)
    while not path.exists():
        lock.release()
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience)


def _inside(folder: Path) -> Iterator[Path]:
    """Hidden files and folders in a folder and below; not what is in hidden folders."""
    for place, folders, names in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *names) if name.startswith("."))
        folders[:] = [name for name in folders if not name.startswith(".")]


def _beside(out: Path) -> Iterator[Path]:
    """Hidden files and folders beside a file or folder that are called after it, or after what is: its checkpoint."""
    starts = (f".{out.stem}-", f".{out.name}-", f".{out.name}.")
    return (out.with_name(name) for name in os.listdir(out.parent) if name.startswith(starts))


def _tidy(hidden: Iterable[Path], own: Path) -> None:
    """Remove what dead processes have left: temporary files, locks, and old folders that new ones took the place of.

    Args:
        hidden: where to look.
        own: the lock of this process.
    """
    leftovers = []
    for path in hidden:
        if is_temporary(path.name):
            leftovers.append(path)
        elif path.name.endswith(".before"):
            _put_back(path)
        elif path.suffix == ".lock" and path.resolve() != own:
            _remove_lock(path)
    remove_leftovers(leftovers)


def _put_back(before: Path) -> None:
    """Put an old folder back where its new content never came; remove it where that did."""
    folder = before.with_name(before.name[1 : -len(".before")])
    with suppress(OSError):
        if folder.exists():
            shutil.rmtree(before, ignore_errors=True)
        else:
            before.rename(folder)


def _remove_lock(path: Path) -> None:
    """Remove a lock, and the note of its owner, if nobody holds it."""
    with suppress(OSError):
        lock = FileLock(path, timeout=0)
        with lock:
            path.with_suffix(".owner.json").unlink(missing_ok=True)
            path.unlink()


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
