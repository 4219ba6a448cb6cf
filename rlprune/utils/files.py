"""Files that are either written whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name and put it in place only when it is complete and on the disk.

    Args:
        path: the file to write or replace; missing parent folders are created.

    Yields:
        A path in the same folder, with the same suffix, that the caller writes (and closes). It replaces ``path`` when
        the block ends, and is removed when the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


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
