"""Tables of images and labels: parquet files, and data sets of the Hugging Face hub."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprune.data.decoding import Source, check_same_classes
from rlprune.data.folders import files_with, with_class_names
from rlprune.data.parts import Part, Role, assign, by_role, parts_of_files
from rlprune.data.streamed.records import Record, TableRecords, picture_in
from rlprune.errors import DataError
from rlprune.utils.files import strange_content
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
    return files_with(folder, ".parquet")


def from_parquet(path: Path, columns: Columns, test_split: str | None) -> Source:
    """Find the rows of one parquet file, or of the parts that the files of a folder make up.

    Raises:
        DataError: a file is damaged or missing, or the files are those of several sets.
    """
    if path.is_file():
        found_in_file = _from_tables(path.name, {"train": Part(path.name, [_parquet(path)])}, columns, None)
        return with_class_names(found_in_file, path.parent)
    found = {
        role: Part(part.name, [_parquet(file) for file in part.content])
        for role, part in parts_of_files(path, parquet_files(path)).items()
    }
    return with_class_names(_from_tables(str(path), found, columns, test_split), path)


@dataclass(frozen=True)
class _Table:
    where: str
    schema: Any
    n_rows: int
    batches: Callable[[list[str]], Iterator[Any]]
    dataset: Callable[[], Any]
    """Opens it as the datasets library does, which gives any row at once."""


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
    return _Table(
        str(path),
        file.schema_arrow,
        n_rows,
        lambda names: file.iter_batches(_ROWS_AT_ONCE, columns=names),
        lambda: _mapped(path),
    )


def _mapped(path: Path) -> Any:
    """A parquet file as the datasets library maps it into memory; a copy is kept in that library's cache.

    Raises:
        DataError: it is damaged, or there is no room for the copy.
    """
    datasets = require("datasets", "data")
    try:
        return datasets.Dataset.from_parquet(str(path))
    except Exception as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise DataError(
            f"{path} cannot be copied into {datasets.config.HF_DATASETS_CACHE}, out of which its pictures are read "
            f"({reason}); replace it if it is damaged, or set HF_DATASETS_CACHE to a folder with more room"
        ) from error


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

    return _Table(where, dataset.features.arrow_schema, len(dataset), batches, lambda: dataset)


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
    classes = _classes(tables, [label for _, label in names], len(train))

    def opened() -> TableRecords:
        return TableRecords([(table.where, table.dataset(), *pair) for table, pair in zip(tables, names, strict=True)])

    return Source(n_train, n_test, itertools.chain.from_iterable(rows), classes, n_validation, opened)


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
    kinds = {f.name: f.type for f in table.schema}
    structs = [name for name, kind in kinds.items() if types.is_struct(kind) and kind.get_field_index("bytes") >= 0]
    contents = [name for name, kind in kinds.items() if types.is_binary(kind) or types.is_large_binary(kind)]
    texts = [name for name, kind in kinds.items() if _is_text(kind)]
    whole = [name for name, kind in kinds.items() if types.is_integer(kind) or types.is_boolean(kind)]
    images = structs or contents or [name for name in ("image", "img") if name in texts]
    usual = [name for name in ("label", "labels", "fine_label") if name in whole][:1]
    labels = usual or whole + [name for name in ("label", "labels", "fine_label") if name in texts]
    fit = structs + contents + texts
    image = _column(table, columns.image, images, fit, "image", "pictures' bytes, or text that names files")
    label = _column(table, columns.label, labels, whole + texts, "label", "whole numbers, or text that names classes")
    return image, label


def _is_text(kind: Any) -> bool:
    """Whether a column holds text, all of it or the numbers of some."""
    types = require("pyarrow", "data").types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _column(table: _Table, chosen: str | None, likely: list[str], fit: list[str], role: str, kind: str) -> str:
    """The chosen column, else the only likely one, if it is among those that fit."""
    name = chosen or (likely[0] if len(likely) == 1 else None)
    if name not in fit:
        held = f"; {name} holds {table.schema.field(name).type}" if name in table.schema.names else ""
        raise DataError(
            f"{table.where} has no {repr(name) if name else 'single'} {role} column ({kind}{held}); set {role}_column "
            f"to one of its columns: {', '.join(table.schema.names)}"
        )
    return name


def _classes(tables: list[_Table], labels: list[str], n_train: int) -> tuple[str, ...] | None:
    """The class names that tables agree on: those in their schemas, or the different texts of those to learn from.

    Raises:
        DataError: they do not agree, so that a label would stand for one class here and for another there.
    """
    pairs = list(zip(tables, labels, strict=True))
    texts = [_is_text(table.schema.field(label).type) for table, label in pairs]
    found = [_names_in_schema(*pair) for pair in pairs]
    for (table, label), text, names in zip(pairs, texts, found, strict=True):
        if text != texts[0]:
            raise DataError(
                f"{label} is text in one of {tables[0].where} and {table.where} and numbers in the other; make them "
                "alike, or set label_column to a column that is"
            )
        check_same_classes(tables[0].where, found[0], table.where, names)
    if not texts[0]:
        return found[0]
    different = {value for table, label in pairs[:n_train] for value in _values(table, label) if value is not None}
    return tuple(sorted(different))


def _values(table: _Table, label: str) -> Iterator[Any]:
    for batch in table.batches([label]):
        yield from batch.column(label).to_pylist()


def _names_in_schema(table: _Table, label: str) -> tuple[str, ...] | None:
    """The class names that the datasets library leaves in a schema, if it does."""
    try:
        noted = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        names = noted["info"]["features"][label]["names"]
    except (ValueError, LookupError, TypeError):  # not by that library, or not a column of classes
        return None
    return tuple(names) if names else None


def _rows(table: _Table, image: str, label: str) -> Iterator[Record]:
    row = itertools.count()
    try:
        for batch in table.batches([image, label]):
            for picture, number in zip(batch.column(image).to_pylist(), batch.column(label).to_pylist(), strict=True):
                yield f"row {next(row)} of {table.where}", picture_in(table.where, picture), number
    except Exception as error:
        raise DataError(f"{table.where} is damaged near row {next(row)} ({error}); replace it") from error
