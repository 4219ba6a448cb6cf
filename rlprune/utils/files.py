"""Files that are either written whole or not at all."""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rlprune.errors import RLPruneError, WriteError

_ROOM = "make room and give the same command again, with --resume where it has that: what was done so far stays"
_RIGHTS = "name a folder that may be written"
_CURES: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
}
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""How a file is opened that may be a pipe which nobody writes to."""
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
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{path.suffix}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):  # a folder that cannot be made holds nothing to remove
                temporary.unlink(missing_ok=True)


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
        WriteError: a folder is there, or its folder may not be written, or cannot be made.
    """
    if path.is_dir():
        raise WriteError(f"{path} cannot be written: it is a folder; name a file")
    probe = _nearest_folder(path) / f".{uuid.uuid4().hex}"
    with writing(path):
        probe.touch()
        probe.unlink()


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


def read_regular(path: Path, most: int) -> bytes:
    """Read a file whole, if it is a regular one of bounded size: no pipe that waits, no device that never ends.

    Args:
        path: the file.
        most: how many bytes it may have.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger; `strerror` says which.
    """
    with open(os.open(path, os.O_RDONLY | _AT_ONCE), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = file.read(most + 1) if found.st_size <= most else b""
        if found.st_size > most or len(content) > most:
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
