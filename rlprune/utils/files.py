"""Files that are either written whole or not at all."""

from __future__ import annotations

import codecs
import errno
import importlib
import json
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from rlprune.errors import RLPruneError, WriteError

fcntl: Any = None
with suppress(ImportError):  # Windows has none
    fcntl = importlib.import_module("fcntl")

ROOM = "make room and give the same command again, with --resume where it has that: what was done so far stays"
"""What to do where a disk is full."""
_RIGHTS = "name a folder that may be written"
_CURES: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
}
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""How a file is opened that may be a pipe which nobody writes to."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What file systems without locks say."""
_TEMPORARY = re.compile(r"(\..+-)[0-9a-f]{32}")
_TORCH_WRITERS = ("inline_container", "PytorchStreamWriter", "iostream error", "basic_ios::clear")
"""What torch's messages speak of where it could not write a file to its end."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name and put it in place only when it is complete and on the disk.

    Args:
        path: the file to write or replace; missing parent folders are created.

    Yields:
        A path in the same folder, with the same suffix, that the caller writes (and closes). It replaces ``path`` when
        the block ends, and is removed when the block raises.

    Raises:
        WriteError: the disk is full, or the folder may not be written.
    """
    with writing(path), scratch(path) as temporary:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A hidden path beside a file or folder, for what is not complete; what is there when the block ends is removed.

    A locked file beside it says that its process lives: the system lets go of that for a process that dies, on whatever
    machine it was. What such processes have left of the same file or folder is removed first.

    Args:
        path: what is to be written; missing parent folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(_leftovers_of(path))
    begun, held = _begin(path)
    try:
        yield begun.with_name(begun.name + path.suffix)
    finally:
        _remove(begun.with_name(begun.name + path.suffix))
        _remove(_held(begun))
        if held is not None:
            os.close(held)


@contextmanager
def temporaries_beside(path: Path) -> Iterator[None]:
    """Let all temporary files that this process makes in the block lie beside a file or folder, other packages' too.

    What a kill leaves of them is then removed like what `scratch` makes.
    """
    with scratch(path) as folder:
        folder.mkdir(mode=0o700)
        before, tempfile.tempdir = tempfile.tempdir, str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


def remove_leftovers(found: Iterable[Path]) -> None:
    """Remove those of some temporary files and folders whose processes are dead."""
    of: dict[Path, list[Path]] = {}
    for path in found:
        match = _TEMPORARY.match(path.name)
        if match:
            of.setdefault(path.with_name(match[0]), []).append(path)
    for begun, paths in of.items():
        with suppress(OSError):
            _remove_if_dead(begun, paths)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that `scratch` makes, or earlier versions made."""
    return _TEMPORARY.match(name) is not None


def _leftovers_of(path: Path) -> list[Path]:
    """What has been begun of a file or folder and is still there."""
    starts = {f".{path.stem}-", f".{path.name}-"}
    found = filter(None, map(_TEMPORARY.match, os.listdir(path.parent)))
    return [path.with_name(match.string) for match in found if match[1] in starts]


def _begin(path: Path) -> tuple[Path, int | None]:
    """What the names of a new temporary file or folder, and of its lock, begin with; and what holds the lock."""
    while True:
        begun = path.with_name(f".{path.stem}-{uuid.uuid4().hex}")
        try:
            return begun, _lock(_held(begun))
        except (BlockingIOError, FileNotFoundError):  # it was taken for one of a dead process in this very moment
            continue


def _held(begun: Path) -> Path:
    """The file that is locked as long as the process lives."""
    return begun.with_name(f"{begun.name}.held")


def _remove_if_dead(begun: Path, paths: Iterable[Path]) -> None:
    """Remove what was begun under a name, if no process holds it; where nothing can be held, it stays."""
    held = _lock(_held(begun))
    if held is not None:
        for path in (*paths, _held(begun)):
            _remove(path)
        os.close(held)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lock(path: Path) -> int | None:
    """Make and lock a file: the descriptor that holds it while it is open; None where there are no such locks.

    Raises:
        BlockingIOError: another process holds it, or removes it.
        OSError: it cannot be made.
    """
    if fcntl is None:
        return None
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(held), os.stat(path)):
            return held
        raise BlockingIOError(errno.EWOULDBLOCK, "it is being removed", str(path))
    except OSError as error:
        os.close(held)
        if error.errno in _NO_LOCKS:
            _remove(path)
            return None
        raise


def before_of(folder: Path) -> Path:
    """Where a folder's old content is while new content takes its place."""
    return folder.with_name(f".{folder.name}.before")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line what cannot be written, why, and what to do.

    Args:
        path: the file or folder that the block writes.

    Raises:
        WriteError: the block raised what Python, torch or safetensors raise where a disk is full or may not be written.
    """
    try:
        yield
    except RLPruneError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        number, reason = _failure(error)
        if reason is None:
            raise
        raise WriteError(f"{path} cannot be written: {reason}; {_CURES.get(number, 'name another place')}") from error


def check_target_file(path: Path) -> None:
    """Make sure that a file may be written, before there is anything to write.

    Raises:
        WriteError: a folder is there, or a device, or its folder may not be written, or cannot be made.
    """
    if path.is_dir():
        raise WriteError(f"{path} cannot be written: it is a folder; name a file")
    if path.exists() and not path.is_file():
        raise WriteError(f"{path} cannot be written: it is no regular file; name another one")
    _probe(path, path.parent)


def check_target_folder(folder: Path) -> None:
    """Make sure that files may be written into a folder, before there is anything to write.

    Raises:
        WriteError: it may not be written, or cannot be made, as where a file is.
    """
    _probe(folder, folder)


def _probe(named: Path, folder: Path) -> None:
    """Write something into a folder, or, if it is not there yet, into the nearest above it; nothing is left of it."""
    with writing(named), tempfile.TemporaryFile(dir=_nearest_folder(folder / "any")):
        pass


def check_room(path: Path, n_bytes: int) -> None:
    """Make sure that a file will find room on its disk, before there is anything to write.

    Args:
        path: the file, or the folder, that is written.
        n_bytes: about how large it will be, with all that is written beside it.

    Raises:
        WriteError: there is less room.
    """
    free = shutil.disk_usage(_nearest_folder(path)).free
    if free < n_bytes:
        raise WriteError(
            f"{path} will need about {n_bytes / 2**20:.1f} MiB, and {free / 2**20:.1f} MiB are free on its disk; make "
            "room, or name another place"
        )


def _nearest_folder(path: Path) -> Path:
    """The folder that holds a path, or the nearest above it that is there yet."""
    return next(folder for folder in path.absolute().parents if folder.exists())


def _failure(error: Exception) -> tuple[int | None, str | None]:
    """The number and the words of a failure to write; no words if the error is another one."""
    if isinstance(error, OSError):
        return error.errno, (error.strerror or str(error)).lower()
    text = str(error)
    found = re.search(r"(?:os error |code: )(\d+)", text)
    if isinstance(error, SafetensorError) and found:
        number = int(found.group(1))
        return number, os.strerror(number).lower()
    if any(name in text for name in _TORCH_WRITERS):
        return errno.ENOSPC, "no room is left on its disk, or within the user's quota"
    return None, None


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading if it is a regular one: no pipe that waits, no device that never ends.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be opened, or is no regular file; `strerror` says which.
    """
    number = os.open(path, os.O_RDONLY | _AT_ONCE)
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        why = os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "it is no regular file"
        raise OSError(errno.EINVAL, why, str(path))
    return open(number, "rb")


def read_regular(path: Path, most: int) -> bytes:
    """Read a file whole, if it is a regular one of bounded size: no pipe that waits, no device that never ends.

    Args:
        path: the file.
        most: how many bytes it may have.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger; `strerror` says which.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
        if size > most or len(content) > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return content


_LARGEST_TEXT = 2**26
"""Bytes of a text."""


def read_text(path: Path) -> str:
    """Read a text in UTF-8, with or without the byte order mark that editors on Windows put before it.

    Raises:
        UnicodeDecodeError: it is in another encoding, which the message names if there is a mark for it.
        OSError: it cannot be read, is no regular file, or is too large for one that somebody wrote.
    """
    content = read_regular(path, _LARGEST_TEXT)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UnicodeDecodeError("utf-8", content, 0, 2, "it has the byte order mark of UTF-16")
    return content.decode("utf-8-sig").replace("\r\n", "\n")


_STARTS = (
    (b"version https://git-lfs.github.com/spec/", "is a pointer of Git LFS, not the file itself: run git lfs pull"),
    (b"<!doctype html", "is a web page, perhaps of a download that failed: download it again"),
    (b"<html", "is a web page, perhaps of a download that failed: download it again"),
)


def strange_content(path: Path) -> str | None:
    """What a file is instead of what its name says, and the cure; None if it does not look strange."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "is empty: download or write it again"
    return next((what for known, what in _STARTS if start.lower().startswith(known)), None)
