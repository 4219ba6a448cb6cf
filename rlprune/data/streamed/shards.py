"""WebDataset shards: tar files of pictures and labels, read in any order through an index that is made once."""

from __future__ import annotations

import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlprune.data.pictures import suffixes
from rlprune.data.streamed.records import PackedNames, Record, digest
from rlprune.errors import DataError, RLPruneError
from rlprune.utils.files import atomic_write
from rlprune.utils.notes import say

_PER_SHARD = 1000
"""Pictures in each shard that is written here."""
_LABELS = ("cls", "json")
_MOST_LABEL = 2**16
"""Bytes of a file with a label, at the most."""


def cache_folder() -> Path:
    """Where what is read once is kept: ``$RLPRUNE_CACHE``, else ``rlprune`` in the user's folder for caches."""
    named = os.environ.get("RLPRUNE_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlprune"


@dataclass(frozen=True, eq=False)
class _Shard:
    """Where each picture of a tar file begins, its size in bytes, label and name."""

    path: Path
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: PackedNames


class TarRecords:
    """The pictures of tar files, each with its label in a file of the same name before its first dot.

    Labels are whole numbers, in a file ``NAME.cls``, or as ``label`` in a file ``NAME.json``.

    Args:
        paths: the files, uncompressed.

    Raises:
        DataError: one is no such file, is cut off, or has no pictures; or a picture has no label.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._shards = [_indexed(path) for path in paths]
        self._ends = np.cumsum([len(shard.starts) for shard in self._shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Record:
        which = int(np.searchsorted(self._ends, index, "right"))
        shard = self._shards[which]
        row = int(index - (self._ends[which - 1] if which else 0))
        name = f"{shard.names[row]} of {shard.path}"
        try:
            with open(shard.path, "rb") as file:  # anew each time, so that processes do not move each other's place
                file.seek(int(shard.starts[row]))
                content = file.read(int(shard.sizes[row]))
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror}); bring it back") from error
        return name, io.BytesIO(content), int(shard.labels[row])

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def labels(self) -> Sequence[Any]:
        """As the index has them."""
        return [label for shard in self._shards for label in shard.labels.tolist()]

    def marks(self) -> tuple[str, str]:
        """Of the names of files and pictures, and of the pictures' sizes."""
        names = (f"{shard.path.name}/{name}" for shard in self._shards for name in shard.names)
        return digest(names), digest(size for shard in self._shards for size in shard.sizes.tolist())


def _indexed(path: Path) -> _Shard:
    """A shard with its index: as it was kept, if the file has not changed since, else made anew."""
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    kept = cache_folder() / f"tar-{digest([str(path.resolve()), found.st_size, found.st_mtime_ns])}.npz"
    with suppress(Exception):  # of another version, or damaged
        with np.load(kept) as index:
            names = PackedNames(index["names"].tobytes(), index["ends"])
            return _Shard(path, index["starts"], index["sizes"], index["labels"], names)
    shard = _read_index(path)
    with suppress(RLPruneError, OSError):  # where it cannot be kept, it is made anew
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(kept) as temporary, open(temporary, "wb") as file:
            names = shard.names
            content = np.frombuffer(names.content, np.uint8)
            np.savez(file, names=content, ends=names.ends, starts=shard.starts, sizes=shard.sizes, labels=shard.labels)
    return shard


def _read_index(path: Path) -> _Shard:
    rows: list[tuple[int, int, int]] = []
    names: list[bytes] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for name, parts in _samples(tar):
                picture = next((part for suffix, part in parts.items() if f".{suffix}" in suffixes()), None)
                if picture is None:
                    continue
                if picture.offset_data + picture.size > path.stat().st_size:
                    raise DataError(f"{path} is cut off in {picture.name}; download it again")
                rows.append((picture.offset_data, picture.size, _label_of(path, name, tar, parts)))
                names.append(os.fsencode(picture.name))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read as an uncompressed tar file ({error}); replace it") from error
    if not rows:
        raise DataError(f"{path} has no pictures; shards of WebDataset hold NAME.jpg and NAME.cls for each")
    starts, sizes, labels = np.array(rows, np.int64).T.copy()
    return _Shard(path, starts, sizes, labels, PackedNames.of(names))


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """The files that belong together, which lie one after the other, by what their names end with."""
    before = ""
    parts: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # else it would hold them all
        folder, _, file = member.name.rpartition("/")
        stem, _, suffix = file.partition(".")
        if not member.isfile() or not stem:
            continue
        name = f"{folder}/{stem}"
        if name != before and parts:
            yield before, parts
            parts = {}
        before = name
        parts[suffix.lower()] = member
    if parts:
        yield before, parts


def _label_of(path: Path, name: str, tar: tarfile.TarFile, parts: dict[str, tarfile.TarInfo]) -> int:
    kind = next((kind for kind in _LABELS if kind in parts), None)
    file = None if kind is None else tar.fileobj
    if kind is None or file is None:
        raise DataError(
            f"{path} has no label for {name.lstrip('/')} (it has {', '.join(parts)}); add "
            f"{name.rpartition('/')[2]}.cls with the number of its class"
        )
    place = file.tell()
    file.seek(parts[kind].offset_data)
    content = file.read(min(parts[kind].size, _MOST_LABEL))
    file.seek(place)
    try:
        found = json.loads(content)
        return int(found["label"] if isinstance(found, dict) else found)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: {parts[kind].name} says no label ({content[:40]!r}); it must be a whole number"
        ) from error


def write_shards(pictures: Iterator[tuple[bytes, str, int]], folder: Path, part: str, n_known: int = 0) -> int:
    """Write pictures into shards of 1,000, each whole or not at all.

    Args:
        pictures: content of a file, what its name ends with (``.jpg``), and label; without those that are known.
        folder: where the shards go.
        part: what their names begin with, such as ``train``.
        n_known: how many pictures are in shards there already; a multiple of 1,000.

    Returns:
        How many pictures there are then.

    Raises:
        WriteError: they cannot be written, for want of room say.
    """
    n = n_known
    ended = False
    while not ended:
        path = folder / f"{part}-{n // _PER_SHARD:06d}.tar"
        first = next(pictures, None)
        if first is None:
            return n
        with atomic_write(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for content, suffix, label in itertools.chain([first], pictures):
                for name, data in ((f"{n:09d}{suffix}", content), (f"{n:09d}.cls", str(label).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                n += 1
                if not n % _PER_SHARD:
                    break
            else:
                ended = True
    return n


def n_in_shards(folder: Path, part: str) -> int:
    """How many pictures whole shards of a part hold that `write_shards` has left in a folder."""
    n = 0
    while (folder / f"{part}-{n:06d}.tar").exists():
        n += 1
    return n * _PER_SHARD


def say_kept(source: str, folder: Path) -> None:
    """Say where a stream is kept."""
    say(f"{source} is read once, into {folder}; remove that folder to read it anew (RLPRUNE_CACHE names another place)")
