"""Which part of a source is to learn from, which validates and which tests, by what people call them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from rlprune.errors import DataError
from rlprune.utils.notes import say_once

Role = Literal["train", "validation", "test"]
_T = TypeVar("_T")

_CALLED: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training", "trainval"),
    "validation": ("validation", "val", "valid", "validate", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_WORDS: dict[str, Role] = {
    word + end: role
    for role, words in _CALLED.items()
    for word in words
    for end in ("", "set", "data", "images", "imgs")  # people write them as one
}


@dataclass(frozen=True)
class Part(Generic[_T]):
    """A part of a source, as it is called there, with what it holds."""

    name: str
    content: _T


@dataclass(frozen=True)
class Parts(Generic[_T]):
    """What each part of a source is for; None where it has none."""

    train: _T
    validation: _T | None
    test: _T | None


def role_of(name: str) -> Role | None:
    """What a folder, file or split is for, if one of the words of its name says so, in any case; else None."""
    roles = {_WORDS[word] for word in re.split(r"[\W\d_]+", name.casefold()) if word in _WORDS}
    return roles.pop() if len(roles) == 1 else None


def by_role(where: str, named: Iterable[tuple[str, _T]]) -> dict[Role, Part[_T]]:
    """The parts whose names say what they are for.

    Raises:
        DataError: two are for the same.
    """
    found: dict[Role, Part[_T]] = {}
    for name, content in named:
        role = role_of(name)
        if role in found:
            raise DataError(f"{where} has both {found[role].name} and {name} for {role}; leave one of them there")
        if role is not None:
            found[role] = Part(name, content)
    return found


def assign(
    where: str, found: Mapping[Role, Part[_T]], labelled: Callable[[_T], bool], test_split: str | None = None
) -> Parts[_T]:
    """Decide what each part is for, and say so in one line.

    The test split tests, and the validation split validates; where there is no test split, or one without labels, the
    validation split tests.

    Args:
        where: what the source is called in messages.
        found: its parts; one is to learn from.
        labelled: whether a part has labels.
        test_split: name of the part that is to test, such as ``val``; None decides as above.

    Raises:
        DataError: there is no such part, or it has no labels; or there is nothing to learn from.
    """
    names = ", ".join(part.name for part in found.values())
    if "train" not in found:
        raise DataError(f"{where} has {names} but no part called train to learn from; rename one of them")
    best_first: tuple[Role, ...] = ("test", "validation")
    usable = [role for role in best_first if role in found and labelled(found[role].content)]
    if test_split is not None:
        chosen = next((role for role, part in found.items() if test_split in (role, part.name)), role_of(test_split))
        if chosen not in usable:
            raise DataError(
                f"{where} has no part {test_split!r} with labels to test on; it has {names}, of which "
                f"{', '.join(found[role].name for role in usable) or 'none'} can test"
            )
        usable = [chosen, *(role for role in usable if role == "validation" != chosen)]
    test = found[usable[0]] if usable else None
    validation = found[usable[1]] if len(usable) > 1 else None
    said = [f"{found['train'].name} is to learn from"]
    said += [f"{validation.name} validates"] if validation else []
    said += [f"{test.name} tests"] if test else ["a share of it is set aside to test"]
    unused = [part for role, part in found.items() if role != "train" and part not in (test, validation)]
    said += [f"{part.name}, {_why(labelled(part.content))}, is left out" for part in unused]
    say_once(f"{where}: {', '.join(said)}")
    return Parts(
        found["train"].content,
        None if validation is None else validation.content,
        None if test is None else test.content,
    )


def _why(labelled: bool) -> str:
    return "not chosen" if labelled else "without labels"


def parts_of_files(folder: Path, files: list[Path]) -> dict[Role, Part[list[Path]]]:
    """The files that make up each part of a set, by their names or those of their folders.

    Args:
        folder: where they are, at any depth.
        files: all of one kind, such as ``train-00000-of-00002.parquet``.

    Raises:
        DataError: none is to learn from, shards are missing, or they are those of several sets.
    """
    grouped: dict[tuple[str, Role | None], list[Path]] = defaultdict(list)
    for file in files:
        grouped[_set_and_role(file, folder)].append(file)
    sets = sorted({name for name, role in grouped if role is not None})
    if not any(role == "train" for _, role in grouped):
        raise DataError(
            f"{folder} has {files[0].name} but no train-*{files[0].suffix}; rename it, or name that file itself"
        )
    if len(sets) > 1:
        raise DataError(
            f"{folder} has the files of several sets ({', '.join(repr(name or '.') for name in sets)}); name the "
            "folder of one, or take the others away"
        )
    found: dict[Role, Part[list[Path]]] = {}
    for (_, role), group in grouped.items():
        if role is not None:
            _check_shards(group)
            found[role] = Part(f"{_words_before_numbers(group[0]) or role}", group)
    return found


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
