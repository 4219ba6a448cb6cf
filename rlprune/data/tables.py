"""Tables of images and labels: parquet files, and data sets of the Hugging Face hub."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlprune.data.decoding import Record, Source
from rlprune.data.folders import class_name, visible
from rlprune.data.parts import Part, Role, assign, by_role, role_of
from rlprune.errors import DataError
from rlprune.utils.files import read_text, strange_content
from rlprune.utils.imports import require

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Columns:
    """Columns that the user names; None finds them.

    Attributes:
        image: of the images.
        label: of the labels.
    """

    image: str | None = None
    label: str | None = None


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files in a folder and those below it, without what is hidden."""
    found: list[Path] = []
    for path in visible(folder):
        if path.is_dir() and not path.is_symlink():
            found += parquet_files(path)
        elif path.suffix.lower() == ".parquet":
            found.append(path)
    return found


def from_parquet(path: Path, columns: Columns, test_split: str | None) -> Source:
    """Find the rows of one parquet file, or of the parts that the files of a folder make up.

    Raises:
        DataError: a file is damaged or missing, or the files are those of several sets.
    """
    if path.is_file():
        found_in_file = _from_tables(path.name, {"train": Part(path.name, [_parquet(path)])}, columns, None)
        return _named(found_in_file, path.parent)
    files = parquet_files(path)
    grouped: dict[tuple[str, Role | None], list[Path]] = defaultdict(list)
    for file in files:
        grouped[_set_and_role(file, path)].append(file)
    sets = sorted({name for name, role in grouped if role is not None})
    if not any(role == "train" for _, role in grouped):
        raise DataError(f"{path} has {files[0].name} but no train-*.parquet; rename it, or name that file itself")
    if len(sets) > 1:
        raise DataError(
            f"{path} has the files of several sets ({', '.join(repr(name or '.') for name in sets)}); name the folder "
            "of one, or take the others away"
        )
    found: dict[Role, Part[list[_Table]]] = {}
    for (_, role), group in grouped.items():
        if role is not None:
            _check_shards(group)
            found[role] = Part(f"{_words_before_numbers(group[0]) or role}", [_parquet(file) for file in group])
    return _named(_from_tables(str(path), found, columns, test_split), path)


def _named(source: Source, folder: Path) -> Source:
    """The source, with the class names in a ``classes.json`` of the folder if the files themselves have none.

    Raises:
        DataError: that is no list of different names.
    """
    path = folder / "classes.json"
    if source.classes is not None or not path.is_file():
        return source
    try:
        names = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); make it a list of the classes' names, or remove it"
        ) from error
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f'{path} is no list of names; make it one, such as ["cat", "dog"] for the labels 0 and 1')
    classes = tuple(map(class_name, names))
    if len(set(classes)) < len(classes):
        raise DataError(f"{path} has a name more than once; give every class its own, in the order of the labels")
    return replace(source, classes=classes)


def _set_and_role(file: Path, root: Path) -> tuple[str, Role | None]:
    """The set that a file belongs to, by its folder and what its name begins with, and the part of it.

    The part is named by the file (``train-00000-of-00001``), or by a folder (``train/0000``).
    """
    words = re.split(r"[-_. ]+", file.stem)
    place = next((i for i, word in enumerate(words) if role_of(word)), None)
    folders = list(file.parent.relative_to(root).parts)
    if place is not None:
        return "/".join((*folders, *words[:place])), role_of(words[place])
    inner = next((i for i in reversed(range(len(folders))) if role_of(folders[i])), None)
    if inner is None:
        return "/".join(folders), None
    return "/".join(folders[:inner] + folders[inner + 1 :]), role_of(folders[inner])


def _words_before_numbers(file: Path) -> str:
    words = re.split(r"[-_. ]+", file.stem)
    return next((word for word in words if role_of(word)), file.parent.name)


def _check_shards(files: list[Path]) -> None:
    """Make sure that all shards of a part are there, and of one division of it alone.

    Raises:
        DataError: some are missing, or there are those of two.
    """
    shards = {file: re.search(r"(\d+)-of-(\d+)$", file.stem) for file in files}
    totals = {match[2] for match in shards.values() if match}
    if len(totals) > 1 or (totals and None in shards.values()):
        raise DataError(
            f"{files[0].parent} has {', '.join(file.name for file in files[:3])}, ...: shards of more than one "
            "division of the same rows; leave one of them there"
        )
    for total in totals:
        names = {file.name for file in files}
        pattern = files[0].name
        wanted = [re.sub(r"\d+(?=-of-)", f"{i:0{_digits(pattern)}d}", pattern) for i in range(int(total))]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise DataError(
                f"{files[0].parent} lacks {', '.join(missing[:5])}, of {int(total)} shards; download "
                f"{'it' if len(missing) == 1 else 'them'} again"
            )


def _digits(name: str) -> int:
    found = re.search(r"(\d+)-of-", name)
    assert found is not None
    return len(found[1])


@dataclass(frozen=True)
class _Table:
    where: str
    schema: Any
    n_rows: int
    batches: Callable[[list[str]], Iterator[Any]]


def _parquet(path: Path) -> _Table:
    parquet = require("pyarrow.parquet", "data")
    strange = strange_content(path)
    if strange:
        raise DataError(f"{path} cannot be read as a parquet file: it {strange}")
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:
        raise DataError(f"{path} cannot be read as a parquet file ({error}); replace it") from error
    n_rows = file.metadata.num_rows
    return _Table(str(path), file.schema_arrow, n_rows, lambda names: file.iter_batches(_ROWS_AT_ONCE, columns=names))


def from_splits(name: str, splits: Any, columns: Columns, test_split: str | None) -> Source:
    """Find the rows of a data set of the datasets library, by the names of its splits.

    Args:
        name: what it is called in messages.
        splits: a data set of that library for each name.
        columns: of images and labels.
        test_split: which split is to test; see `rlprune.data.parts.assign`.

    Raises:
        DataError: none is to learn from.
    """
    tables = [(split, [_hub_table(f"split {split} of {name}", splits[split])]) for split in splits]
    found = by_role(name, tables)
    if "train" not in found:
        raise DataError(f"{name!r} has the splits {', '.join(splits)}; a split called train is needed")
    return _from_tables(name, found, columns, test_split)


def _hub_table(where: str, dataset: Any) -> _Table:
    def batches(names: list[str]) -> Iterator[Any]:
        chunks: Iterator[Any] = dataset.select_columns(names).with_format("arrow").iter(_ROWS_AT_ONCE)
        return chunks

    return _Table(where, dataset.features.arrow_schema, len(dataset), batches)


def _from_tables(where: str, found: dict[Role, Part[list[_Table]]], columns: Columns, test_split: str | None) -> Source:
    if len(found) > 1 or test_split is not None:
        parts = assign(where, found, lambda tables: _is_labelled(tables, columns), test_split)
        train, test, validation = parts.train, parts.test or [], parts.validation or []
    else:
        train, test, validation = found["train"].content, [], []
    tables = train + test + validation
    names = [_columns(table, columns) for table in tables]
    rows = [_rows(table, image, label) for table, (image, label) in zip(tables, names, strict=True)]
    n_train, n_test, n_validation = (sum(table.n_rows for table in part) for part in (train, test, validation))
    classes = _classes(tables[0], names[0][1])
    return Source(n_train, n_test, itertools.chain.from_iterable(rows), classes, n_validation)


def _is_labelled(tables: list[_Table], columns: Columns) -> bool:
    """Whether a part has a column of labels, and others in it than -1 and none at all."""
    for table in tables:
        try:
            _, label = _columns(table, columns)
            for batch in table.batches([label]):
                values = batch.column(label).to_pylist()
                if any(value not in (None, -1) for value in values):
                    return True
        except DataError:
            return False
        except Exception:  # damaged, which reading it says better
            return True
    return False


def _columns(table: _Table, columns: Columns) -> tuple[str, str]:
    """Find the columns of the images and the labels."""
    types = require("pyarrow", "data").types
    images = [f.name for f in table.schema if types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    labels = [f.name for f in table.schema if types.is_integer(f.type)]
    usual = [name for name in ("label", "labels", "fine_label") if name in labels][:1] or labels
    image = _column(table, columns.image, images, images, "image", "struct with bytes")
    label = _column(table, columns.label, usual, labels, "label", "integers")
    return image, label


def _column(table: _Table, chosen: str | None, likely: list[str], fit: list[str], role: str, kind: str) -> str:
    """The chosen column, else the only likely one, if it is among those that fit."""
    name = chosen or (likely[0] if len(likely) == 1 else None)
    if name not in fit:
        raise DataError(
            f"{table.where} has no {repr(name) if name else 'single'} {role} column ({kind}); set {role}_column to "
            f"one of its columns: {', '.join(table.schema.names)}"
        )
    return name


def _classes(table: _Table, label: str) -> tuple[str, ...] | None:
    """Read the class names that the datasets library leaves in a schema."""
    metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(label, {}).get("names")
    return tuple(names) if names else None


def _rows(table: _Table, image: str, label: str) -> Iterator[Record]:
    row = itertools.count()
    try:
        for batch in table.batches([image, label]):
            for picture, number in zip(batch.column(image).to_pylist(), batch.column(label).to_pylist(), strict=True):
                picture = picture or {}
                content = picture.get("bytes")
                item = picture.get("path") if content is None else io.BytesIO(content)
                yield f"row {next(row)} of {table.where}", item, number
    except Exception as error:
        raise DataError(f"{table.where} is damaged near row {next(row)} ({error}); replace it") from error
