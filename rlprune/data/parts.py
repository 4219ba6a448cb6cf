"""Which part of a source is to learn from, which validates and which tests, by what people call them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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
