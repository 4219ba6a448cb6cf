"""Records that can be read in any order, by any process: files, rows of tables, items of Python data sets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Record = tuple[str, Any, Any]
"""The name of an image in messages; the image in any form that `read_picture` takes; its label."""


class Records(Protocol):
    """Records that can be read in any order."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int) -> Record:
        """One of them."""

    def labels(self) -> Sequence[Any]:
        """The labels of all; no picture is decoded for them, where that can be helped."""

    def marks(self) -> tuple[str, str]:
        """Digests of the names of all records and of their sizes in bytes: they tell whether a source has changed."""


def digest(parts: Iterable[str | int]) -> str:
    """One short text for many, which differs where one of them does."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(f"{part}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


class PackedNames:
    """Many names in the room of their letters.

    Args:
        content: the names, one after the other.
        ends: where each ends, int64 (N,).
    """

    def __init__(self, content: bytes, ends: NDArray[np.int64]) -> None:
        self.content = content
        self.ends = ends

    @classmethod
    def of(cls, names: Sequence[bytes]) -> PackedNames:
        """Pack some."""
        return cls(b"".join(names), np.cumsum([len(name) for name in names], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.content[start : int(self.ends[index])])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


class FileRecords:
    """A file for each picture; what is held of a million takes no more room than their names.

    Args:
        records: names, paths and labels.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._names = PackedNames.of([os.fsencode(path) for _, path, _ in records])
        self._labels = np.array([label for _, _, label in records], np.int64)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        path = Path(self._names[index])
        return str(path), path, int(self._labels[index])

    def labels(self) -> Sequence[Any]:
        """The number of each file's class folder."""
        return list(self._labels.tolist())

    def marks(self) -> tuple[str, str]:
        """Of the names of folder and file, wherever they lie, and of the files' sizes; -1 for one that is gone."""
        names = digest("/".join(name.split(os.sep)[-2:]) for name in self._names)
        return names, digest(map(_size, self._names))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def picture_in(where: str, value: Any) -> Any:
    """The picture that a row of a table holds: its bytes, or the file that it names, beside the table or from here.

    Args:
        where: the table's file, or what it is called otherwise.
        value: bytes, a path, or a struct with ``bytes`` or ``path``; None where there is none.
    """
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, str):
        beside = Path(where).parent / value
        return beside if beside.is_file() else Path(value)
    return value


class TableRecords:
    """Rows of tables of the `datasets` library, which maps their files into memory.

    Args:
        tables: for each its name, the data set, and its columns of images and labels.
    """

    def __init__(self, tables: Sequence[tuple[str, Any, str, str]]) -> None:
        self._tables = [
            (where, table.select_columns([image, label]).with_format("arrow"), image, label)
            for where, table, image, label in tables
        ]
        self._ends = np.cumsum([len(table) for _, table, _, _ in self._tables])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Record:
        which = int(np.searchsorted(self._ends, index, "right"))
        where, table, image, label = self._tables[which]
        row = int(index - (self._ends[which - 1] if which else 0))
        found = table[row]
        return (
            f"row {row} of {where}",
            picture_in(where, found.column(image)[0].as_py()),
            found.column(label)[0].as_py(),
        )

    def labels(self) -> Sequence[Any]:
        """The column of labels."""
        found: list[Any] = []
        for _, table, _, label in self._tables:
            found += table.select_columns([label]).with_format(None)[:][label]
        return found

    def marks(self) -> tuple[str, str]:
        """Of the tables' names and lengths, and of their files' sizes."""
        names = [f"{Path(where).name} {len(table)}" for where, table, _, _ in self._tables]
        return digest(names), digest(table.data.nbytes for _, table, _, _ in self._tables)


class DatasetRecords:
    """Items of data sets as Python has them: objects with a length and items.

    Args:
        parts: for each its name and the data set.
        read: name, data set and number -> the item as a record.
    """

    def __init__(self, parts: Sequence[tuple[str, Any]], read: Callable[[str, Any, int], Record]) -> None:
        self._parts = list(parts)
        self._read = read
        self._ends = np.cumsum([len(part) for _, part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Record:
        which = int(np.searchsorted(self._ends, index, "right"))
        where, part = self._parts[which]
        return self._read(where, part, int(index - (self._ends[which - 1] if which else 0)))

    def labels(self) -> Sequence[Any]:
        """As data sets of torchvision list them; else every item is read once."""
        found: list[Any] = []
        for where, part in self._parts:
            listed = getattr(part, "targets", None)
            known = listed is not None and len(listed) == len(part) and not getattr(part, "target_transform", None)
            found += list(listed) if known else [self._read(where, part, index)[2] for index in range(len(part))]  # type: ignore[arg-type]
        return found

    def marks(self) -> tuple[str, str]:
        """Of the number of items, which is all that is known of them."""
        return digest(len(part) for _, part in self._parts), ""
