"""Rows of a table that go to files one by one, so that a million of them need no memory; whole files or none."""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlprune.utils.files import atomic_write

Row = Mapping[str, Any]
Write = Callable[[Row], None]


@contextmanager
def csv_rows(path: Path | None, columns: Mapping[str, str]) -> Iterator[Write]:
    """What writes rows to a CSV file, in UTF-8, with a line of names first; nothing if there is no path.

    Args:
        path: the file; it is in place once the block ends.
        columns: which keys of a row are written, in this order, and by which names.

    Raises:
        WriteError: the disk is full, or the file may not be written.
    """
    if path is None:
        yield lambda row: None
        return
    with atomic_write(path) as temporary:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
            writer.writerow(columns)
            yield writer.writerow


@contextmanager
def json_rows(path: Path | None) -> Iterator[Write]:
    """What writes rows to a list in a JSON file, as `rlprune.utils.files.write_json` does; nothing if there is no path.

    Args:
        path: the file; it is in place once the block ends.

    Raises:
        WriteError: the disk is full, or the file may not be written.
    """
    if path is None:
        yield lambda row: None
        return
    with atomic_write(path) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            before = "[\n"

            def write(row: Row) -> None:
                nonlocal before
                file.write(before + textwrap.indent(json.dumps(row, indent=1), " "))
                before = ",\n"

            yield write
            file.write("[]\n" if before == "[\n" else "\n]\n")
