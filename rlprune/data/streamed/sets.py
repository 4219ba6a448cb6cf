"""Sets of WebDataset shards, and streams of the `datasets` library, which become such shards in a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlprune.data.decoding import Source
from rlprune.data.folders import files_with, has_images, with_class_names
from rlprune.data.parts import Part, Role, assign, parts_of_files, role_of
from rlprune.data.pictures import suffixes
from rlprune.data.streamed.records import digest
from rlprune.data.streamed.shards import TarRecords, cache_folder, n_in_shards, say_kept, write_shards
from rlprune.errors import DataError
from rlprune.utils.files import write_json
from rlprune.utils.imports import require
from rlprune.utils.locks import hold


def tar_files(folder: Path) -> list[Path]:
    """The shards in a folder and those below it; none where pictures lie beside them, which count."""
    found = files_with(folder, ".tar")
    return [] if found and has_images(folder) else found


def from_tars(path: Path, test_split: str | None) -> Source:
    """Find the pictures of one tar file, or of the parts that the shards of a folder make up.

    Raises:
        DataError: a shard is damaged or missing, or has a picture without a label.
    """
    found: dict[Role, Part[list[Path]]] = {"train": Part(path.name, [path])}
    if path.is_dir():
        found = parts_of_files(path, tar_files(path))
    if len(found) > 1 or test_split is not None:
        parts = assign(str(path), found, lambda _: True, test_split)
        divided = [parts.train, parts.test or [], parts.validation or []]
    else:
        divided = [found["train"].content, [], []]
    sizes = [len(TarRecords(files)) if files else 0 for files in divided]
    records = TarRecords([file for files in divided for file in files])
    source = Source(sizes[0], sizes[1], records, None, sizes[2], lambda: records)
    return with_class_names(source, path if path.is_dir() else path.parent)


def is_stream(dataset: Any) -> bool:
    """Whether it is a data set of the datasets library that is read in one order only (``streaming=True``)."""
    kinds = {(kind.__module__, kind.__name__) for kind in type(dataset).__mro__}
    return ("datasets.iterable_dataset", "IterableDataset") in kinds


def from_streams(
    name: str, splits: Mapping[str, Any], image: str | None, label: str | None, test_split: str | None
) -> Source:
    """Read streams once into shards in a cache, and find the pictures there; what is there already is not read anew.

    Args:
        name: what they are called in messages.
        splits: a stream for each part's name.
        image: column of the images; None finds it.
        label: column of the labels; None finds it.
        test_split: which of them is to test; see `rlprune.data.parts.assign`.

    Raises:
        DataError: none is to learn from, there is no column for images or labels, or reading fails.
        WriteError: there is no room for the shards.
    """
    if not any(role_of(split) == "train" for split in splits):
        raise DataError(f"{name!r} has the splits {', '.join(splits)}; a split called train is needed")
    folder = cache_folder() / f"stream-{digest((name, image or '', label or '', *map(_told, splits.values())))}"
    folder.mkdir(parents=True, exist_ok=True)
    say_kept(name, folder)
    with hold(folder / "complete.json"):
        for split, stream in splits.items():
            role = role_of(split)
            if role is not None and not (folder / f"{role}.json").exists():
                _keep(f"split {split} of {name}", stream, folder, role, (image, label))
    return from_tars(folder, test_split)


def _told(stream: Any) -> str:
    """What a stream says of what it is."""
    info = stream.info
    return f"{info.dataset_name} {info.config_name} {info.version} {stream.split} {info.features}"


def _keep(where: str, stream: Any, folder: Path, role: Role, columns: tuple[str | None, str | None]) -> None:
    """Write what is left of a stream into shards."""
    datasets = require("datasets", "data")
    features = stream.features
    if features is None:
        raise DataError(f"{where} does not say what it holds; give load_dataset its features")
    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)] or [
        key for key in ("label", "labels", "fine_label") if key in features
    ]
    image, label = columns[0] or next(iter(images), None), columns[1] or next(iter(labels), None)
    if image is None or image not in images or label is None or label not in features:
        raise DataError(
            f"{where} has the columns {', '.join(features)}; name those of images and labels with image_column and "
            "label_column"
        )
    n_known = n_in_shards(folder, role)
    rows = stream.select_columns([image, label]).cast_column(image, datasets.Image(decode=False)).skip(n_known)
    n = write_shards(_files_of(where, rows, image, label), folder, role, n_known)
    names = getattr(features[label], "names", None)
    if names:
        write_json(folder / "classes.json", list(names))
    write_json(folder / f"{role}.json", {"n": n})


def _files_of(where: str, rows: Any, image: str, label: str) -> Iterator[tuple[bytes, str, int]]:
    try:
        for row in rows:
            picture = row[image]
            content = picture["bytes"] if picture["bytes"] is not None else Path(picture["path"]).read_bytes()
            suffix = Path(picture["path"] or "").suffix.lower()
            yield content, suffix if suffix in suffixes() else ".jpg", int(row[label])
    except Exception as error:
        raise DataError(
            f"{where} ended before its time ({type(error).__name__}: {str(error).partition(chr(10))[0]}); what was "
            "read is kept: give the same command again"
        ) from error
