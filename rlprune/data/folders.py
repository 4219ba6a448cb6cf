"""Folders of class folders, however they are nested and whatever else lies about in them."""

from __future__ import annotations

import itertools
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from rlprune.data.decoding import Source
from rlprune.data.parts import assign, by_role, role_of
from rlprune.data.pictures import FOREIGN_SUFFIXES, suffixes
from rlprune.data.streamed.records import FileRecords, Record
from rlprune.errors import DataError
from rlprune.utils.files import read_text
from rlprune.utils.notes import say_once

COMMON_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tiff", ".webp")
_SYSTEM = frozenset(
    ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db")
)
"""What operating systems and other programs leave in folders, in lower case."""

ARCHIVE_SUFFIXES = frozenset((".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"))
_TEXTS = frozenset(
    (".txt", ".json", ".xml", ".csv", ".tsv", ".md", ".html", ".yaml", ".yml", ".ini", ".db", ".log", ".py")
)
"""What lies beside pictures and holds none; any other file that is left out is said."""

FORM = "make one for each class and put its images there"


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without what is hidden or a system's."""
    return [folder / name for name in _visible_names(folder)]


def _visible_names(folder: Path) -> list[str]:
    return sorted((name for name in os.listdir(folder) if not _hidden(name)), key=class_name)


def files_with(folder: Path, suffix: str) -> list[Path]:
    """The files in a folder and those below it whose names end with something, without what is hidden."""
    found: list[Path] = []
    for path in visible(folder):
        if path.is_dir() and not path.is_symlink():
            found += files_with(path, suffix)
        elif path.suffix.lower() == suffix:
            found.append(path)
    return found


def pictures_below(folder: Path) -> Iterator[Path]:
    """All pictures below a folder, in the order in which they are loaded: by name, one folder after another.

    What is hidden, or a system's, and what Pillow does not read is left out; of the latter, what may be pictures is
    said, where there are others; that there are none is for the caller to say.

    Args:
        folder: the folder, with or without folders of classes.
    """
    found: Counter[str] = Counter()
    for path in _files(folder):
        suffix = path.suffix.lower()
        found[suffix] += 1
        if suffix in suffixes():
            yield path
    if found.keys() & suffixes() or found.keys() & FOREIGN_SUFFIXES:
        _say_unread(folder, found.elements())


def class_name(name: str) -> str:
    """A name in the one form of Unicode that class names have here."""
    return unicodedata.normalize("NFC", name)


def from_folders(root: Path, test_split: str | None) -> Source:
    """Find the images in a folder of class folders, alone or below folders for training, validation and testing.

    Args:
        root: the folder.
        test_split: which of its parts is to test; see `rlprune.data.parts.assign`.

    Raises:
        DataError: it has fewer than two classes, one without images, or parts that do not fit each other.
    """
    root = _without_wrapping(root)
    inside = _folders(root)
    if not _has_parts(inside):
        if test_split is not None:
            raise DataError(f"{root} has no part {test_split!r}, but classes: {_names(inside)}; leave test_split out")
        found_classes = _classes(root)
        _check_parts_outside(found_classes)
        records, classes = _records(found_classes)
        return Source(len(records), 0, records, classes, open=lambda: FileRecords(records))
    found = by_role(str(root), ((path.name, path) for path in inside if has_images(path)))
    others = [path for path in inside if role_of(path.name) is None and has_images(path)]
    if others:
        say_once(f"{root}: {_names(others)} is for neither training nor testing, and left out")
    parts = assign(str(root), found, lambda path: _is_labelled(path, _class_names(found["train"].content)), test_split)
    train, classes = _records(_classes(_without_wrapping(parts.train)))
    test = _records_of_part(parts.test, parts.train, classes) if parts.test else []
    validation = _records_of_part(parts.validation, parts.train, classes) if parts.validation else []
    records = train + test + validation
    return Source(len(train), len(test), records, classes, len(validation), lambda: FileRecords(records))


def _check_parts_outside(classes: dict[str, Path]) -> None:
    """Make sure that parts are not inside the class folders, where they would be mixed.

    Raises:
        DataError: each has one for training and another one.
    """
    inside = [
        {role_of(path.name): path for path in _folders(folder) if role_of(path.name) and has_images(path)}
        for folder in classes.values()
    ]
    if all(len(parts) > 1 and "train" in parts for parts in inside):
        first, second = sorted(inside[0].values())[:2]
        raise DataError(
            f"{first.parent.parent} has {first.parent.name}/{first.name} and {first.parent.name}/{second.name}, which "
            f"would be mixed: put the parts outside and the classes inside, {first.name}/{first.parent.name} and "
            f"{second.name}/{first.parent.name}"
        )


def with_class_names(source: Source, folder: Path) -> Source:
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


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SYSTEM


def _folded(name: str) -> str:
    """A name without what is easily mistyped."""
    return " ".join(name.casefold().replace("_", " ").split())


def _folders(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.is_dir()]


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _files(folder: Path, linked: list[Path] | None = None) -> Iterator[Path]:
    """All files below a folder that are not hidden, nor in a hidden folder; linked folders in it go into a list."""
    for name in _visible_names(folder):
        path = folder / name
        if not path.is_dir():
            yield path
        elif not path.is_symlink():  # one might lead back up
            yield from _files(path, linked)
        elif linked is not None:
            linked.append(path)


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in _files(folder) if path.suffix.lower() in suffixes())


def has_images(folder: Path) -> bool:
    """Whether there is a picture anywhere below a folder."""
    return any(True for _ in _images(folder))


def _has_own_images(folder: Path) -> bool:
    return any(path.suffix.lower() in suffixes() and path.is_file() for path in visible(folder))


def _holds_classes(folder: Path) -> bool:
    """Whether its images lie in folders, and not in itself."""
    return not _has_own_images(folder) and any(has_images(path) for path in _folders(folder))


def _without_wrapping(folder: Path) -> Path:
    """The folder, or the only one in it that has images, if that holds folders of images again."""
    full = [path for path in _folders(folder) if has_images(path)]
    if _has_own_images(folder) or len(full) != 1 or not _holds_classes(full[0]):
        return folder
    if role_of(full[0].name) not in (None, role_of(folder.name)):
        return folder  # train/ alone, or test/ alone, which is refused
    say_once(f"{folder}: its only folder of images, {full[0].name}, is taken")
    return _without_wrapping(full[0])


def _has_parts(inside: list[Path]) -> bool:
    """Whether folders are parts of a set (train, test) and no classes, one of which may be called train."""
    full = [path for path in inside if has_images(path)]
    roles = [path for path in full if role_of(path.name)]
    others = len(full) - len(roles)
    train = next((path for path in roles if role_of(path.name) == "train" and _holds_classes(path)), None)
    if train is not None:
        if len(roles) == 1:
            _check_alone(train, [path for path in full if path not in roles])
        return len(roles) > 1 or not others
    named_so = [path for path in roles if path.name.isalpha()]  # a class may be called train_station
    if others or len(named_so) < len(roles) or not roles:
        return False
    if len(roles) > 1 and not any(_holds_classes(path) for path in roles):
        raise DataError(f"{inside[0].parent} has {_names(full)}, which have no folders in them; {FORM}")
    return any(_holds_classes(path) for path in roles)


def _check_alone(train: Path, others: list[Path]) -> None:
    """Make sure that folders beside one for training are no parts of other names, which would be taken for classes.

    Raises:
        DataError: one has the same folders in it.
    """
    for path in others:
        if len(common := _class_names(train) & _class_names(path)) > 1:
            raise DataError(
                f"{train.parent} has {train.name} and {path.name} with the same folders in them "
                f"({', '.join(sorted(common)[:3])}): if {path.name} is for testing or validation, call it test or val; "
                f"if both are classes, call {train.name} otherwise"
            )


def _is_labelled(folder: Path, classes: set[str]) -> bool:
    """Whether a part has folders of the classes, not images alone or in folders of other names."""
    return bool(_class_names(folder) & classes) or (_holds_classes(folder) and len(_class_names(folder)) > 1)


def _class_names(folder: Path) -> set[str]:
    return {class_name(path.name) for path in _folders(_without_wrapping(folder))}


def _classes(train: Path) -> dict[str, Path]:
    """The folder of each class by its name."""
    found: dict[str, Path] = {}
    for path in _folders(train):
        name = class_name(path.name)
        if name in found:
            raise DataError(f"{train} has two folders for the class {name!r}, in two forms of Unicode; join them")
        found[name] = path
    if not found:
        packed = [path.name for path in visible(train) if path.suffix.lower() in ARCHIVE_SUFFIXES]
        unpack = f" but {', '.join(packed[:3])}: unpack it first" if packed else ""
        raise DataError(f"{train} has no folders{unpack}; {FORM}")
    alike = [
        names for _, group in itertools.groupby(sorted(found, key=_folded), _folded) if len(names := list(group)) > 1
    ]
    if alike:
        said = ", ".join(map(repr, alike[0]))
        say_once(f"{train}: the classes {said} differ in capitals or spaces alone; join their folders if they are one")
    if len(found) == 1:
        only = next(iter(found))
        raise DataError(f"{train} has one class, {only!r}, and there is nothing to learn; {FORM}, for two at least")
    loose = sum(1 for path in visible(train) if path.is_file() and path.suffix.lower() in suffixes())
    if loose:
        say_once(f"{train}: {loose} images in no class folder are left out")
    return found


def _records(classes: dict[str, Path]) -> tuple[list[Record], tuple[str, ...]]:
    records: list[Record] = []
    for label, folder in enumerate(classes.values()):
        linked: list[Path] = []
        everything = list(_files(folder, linked))
        if linked:
            say_once(
                f"{folder}: linked folders in it ({_names(linked)}) are left out; copy what they hold, or link files"
            )
        files = [path for path in everything if path.suffix.lower() in suffixes()]
        _say_unread(folder, (path.suffix.lower() for path in everything))
        if not files:
            raise DataError(
                f"the class folder {folder} has no images ({' '.join(COMMON_SUFFIXES)}, ...); add some or remove it"
            )
        records += [(str(file), file, label) for file in files]
    return records, tuple(classes)


def _records_of_part(part: Path, train: Path, classes: tuple[str, ...]) -> list[Record]:
    """The images of a part for testing or validation, in the classes of the one for training."""
    part = _without_wrapping(part)
    found = {class_name(path.name): path for path in _folders(part)}
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise DataError(f"{part} has a class {unknown[0]!r} that {train} lacks; its classes are {', '.join(classes)}")
    records = [
        [(str(file), file, label) for file in _images(found[name])] if name in found else []
        for label, name in enumerate(classes)
    ]
    empty = [name for name, files in zip(classes, records, strict=True) if not files]
    if empty:
        say_once(f"{part}: it has no images of {', '.join(empty)}")
    return list(itertools.chain.from_iterable(records))


def _say_unread(folder: Path, found: Iterable[str]) -> None:
    """Say how many files are not read that may be pictures, by the suffixes of all files, in small letters."""
    unread = {suffix: n for suffix, n in Counter(found).items() if suffix not in suffixes() | _TEXTS}
    foreign, others = sorted(unread.keys() & FOREIGN_SUFFIXES), sorted(unread.keys() - FOREIGN_SUFFIXES)
    for kinds, why in (
        (foreign, ", which Pillow does not read here"),
        (others, ": by what their names end with, they are no pictures"),
    ):
        if n := sum(unread[suffix] for suffix in kinds):
            shown = " ".join(suffix or "no suffix" for suffix in kinds[:5])
            left = "file ({}) is left out" if n == 1 else "files ({}) are left out"
            say_once(f"{folder}: {n} {left.format(shown)}{why}")
