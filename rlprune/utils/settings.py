"""Settings: frozen dataclasses that are checked when they are made, and say in one line per field what is wrong.

Only modules that train import this one.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import pydantic.dataclasses
from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, core_schema
from typing_extensions import dataclass_transform

from rlprune.errors import SettingsError

T = TypeVar("T")
Hint = Any
"""What a field is annotated with."""


@dataclasses.dataclass(frozen=True)
class Must:
    """Restricts a field further than its type does, in `Annotated[type, Must(...)]`.

    Attributes:
        test: whether a value of the right type is allowed.
        words: what is allowed, to follow "give" in a message.
    """

    test: Callable[[Any], bool]
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Let pydantic check the type first, then ask the test."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        if not self.test(value):
            raise ValueError(f"give {self.words}")
        return value


@dataclasses.dataclass(frozen=True)
class AtMost:
    """Refuses numbers, and numbers of entries, with which something would need too much memory, or never end.

    It speaks of such a number only: what `describe` tells is the range that makes sense. Of several the last counts.

    Attributes:
        most: the largest number that is allowed.
    """

    most: float

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Ask before the type is checked, and so before what stands further left."""
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) > self.most:
            raise ValueError(f"give {self.most:g} entries at most")
        if isinstance(value, int | float) and self.most < value < math.inf:
            raise ValueError(f"give {self.most:.15g} at most")
        return value


NonNegativeInt = Annotated[int, Field(ge=0), AtMost(2**31 - 1)]
PositiveInt = Annotated[int, Field(ge=1), AtMost(2**31 - 1)]
NonNegativeFloat = Annotated[float, Field(ge=0), AtMost(1e9)]
PositiveFloat = Annotated[float, Field(gt=0), AtMost(1e9)]
LearningRate = Annotated[PositiveFloat, AtMost(100)]
Penalty = Annotated[NonNegativeFloat, AtMost(1000)]
"""Price of compute, in right answers."""
Epochs = Annotated[NonNegativeInt, AtMost(100_000)]
BatchSize = Annotated[PositiveInt, AtMost(2**20)]
Pixels = Annotated[PositiveInt, AtMost(4096)]
"""A side of an image."""
NCandidates = Annotated[PositiveInt, AtMost(100_000)]
"""Profiles that a search tries."""
Seconds = Annotated[NonNegativeFloat, AtMost(86_400)]
Share = Annotated[float, Field(ge=0, le=1)]
"""In [0, 1]."""
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
"""In [0, 1)."""
PositiveShare = Annotated[float, Field(gt=0, le=1)]
"""In (0, 1]."""
InnerShare = Annotated[float, Field(gt=0, lt=1)]
"""In (0, 1)."""
as_tuple = Field(strict=False)
"""Lets a list stand for a tuple, in `Annotated[tuple[...], as_tuple]`; JSON and TOML know only lists."""

_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_LONGEST = 80
"""Characters of a value that a message shows."""


def _in_range(seed: int) -> int:
    if not 0 <= seed < 2**32:
        raise ValueError(f"give a whole number from 0 to {2**32 - 1}")
    return seed


Seed = Annotated[int, AfterValidator(_in_range)]
"""What all generators of random numbers take; those of numpy take no others."""


def ascending(values: Sequence[float]) -> bool:
    """Whether each number is larger than the one before."""
    return all(low < high for low, high in pairwise(values))


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings_dataclass(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass of settings.

    Its fields are checked strictly against their types: true is no 1, "3" is no 3, and NaN and infinity are no numbers;
    a whole number may stand for a float. Where several settings exclude each other, a method
    `_conflicts(self) -> Iterator[str]` gives a line for each such case; it is asked once all fields are right.

    Raises:
        SettingsError: when one is made: the message has a line for every setting that is wrong or unknown.
    """
    if hasattr(cls, "_conflicts"):
        cls.__post_init__ = _check_conflicts  # type: ignore[attr-defined]
    made = pydantic.dataclasses.dataclass(frozen=True, config=_CONFIG)(cls)
    checked = made.__init__
    names = [field.name for field in dataclasses.fields(made)]  # type: ignore[arg-type]

    @functools.wraps(checked)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            checked(self, *args, **kwargs)
        except ValidationError as error:
            given = dict(zip(names, args, strict=False)) | kwargs
            raise SettingsError("\n".join(_lines(made, error.errors(), given))) from None

    made.__init__ = __init__  # type: ignore[method-assign, assignment]
    return cast(type[T], made)


def _check_conflicts(self: Any) -> None:
    if lines := list(self._conflicts()):
        raise SettingsError("\n".join(lines))


def read_settings(kind: type[T], tables: Mapping[str, Any]) -> T:
    """Make settings of plain values, as TOML and JSON have them: lists become tuples, tables settings.

    Args:
        kind: a class of settings.
        tables: value by name.

    Raises:
        SettingsError: a value is wrong, missing or unknown; fields of fields have names with dots.
    """
    if lines := list(_dates(tables)):
        raise SettingsError("\n".join(lines))
    text = json.dumps(tables)
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(kind, error.errors(), tables))) from None


def _dates(value: Any, name: str = "") -> Iterator[str]:
    """A line for everything that TOML has and JSON has not, by its name."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _dates(each, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _dates(each, name)
    elif not isinstance(value, str | int | float | None):
        yield f"{name}={value}: a {type(value).__name__} is no setting; put such a value in quotes, to make it text"


def _lines(kind: type, errors: Sequence[ErrorDetails], given: Mapping[str, Any]) -> list[str]:
    """One line for every field that is wrong, in the order in which they were checked."""
    found: dict[str, str] = {}
    for error in errors:
        place = _Place(kind, given).at(error["loc"])
        found.setdefault(place.name or str(len(found)), _line(error, place))
    return list(found.values())


class _Place:
    """Where something is wrong: a field, its value, and what it may be.

    Attributes:
        name: with dots.
        hint: of the field; None if there is no such field.
        value: as it was given.
        siblings: names of all fields there.
        whole: whether the field as such is wrong, not an entry of its list.
    """

    def __init__(self, hint: Hint, value: Any) -> None:
        self.name = ""
        self.hint = hint
        self.value = value
        self.siblings: list[str] = []
        self.whole = True

    def at(self, path: Sequence[int | str]) -> _Place:
        """Follow a path down to the field; entries of a list of numbers are not followed, the whole list counts."""
        for token in path:
            table = _table(self.hint)
            if table is None:
                self.whole = False
                break
            if isinstance(token, str):
                self._enter(table, token)
            elif not self.name:  # given by position
                names = list(_fields(table))
                self._enter(table, names[token] if token < len(names) else f"argument {token + 1}")
            elif isinstance(self.value, list | tuple):  # a list of tables; else a single one stands for it
                self.name += f"[{token}]"
                self.hint = table
                self.value = self.value[token]
        return self

    def _enter(self, table: type, field: str) -> None:
        self.siblings = list(_fields(table))
        self.name += f".{field}" if self.name else field
        self.hint = _fields(table).get(field)
        self.value = self.value.get(field) if isinstance(self.value, Mapping) else None


def _line(error: ErrorDetails, place: _Place) -> str:
    """What is wrong, the value, what is allowed and what to do."""
    kind = error["type"]
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, SettingsError):  # of several settings, which its lines name
        return "\n".join(f"{place.name}: {line}" if place.name else line for line in str(reason).splitlines())
    if kind == "missing" and place.whole:
        return f"{place.name} is missing: give {describe(place.hint)}"
    if kind in ("unexpected_keyword_argument", "unexpected_positional_argument"):
        return f"{place.name}={_shown(error['input'])}: there is no such setting; {_nearest(place)}"
    if kind == "multiple_argument_values":
        return f"{place.name} is given twice: once by its place, once by its name"
    advice = f"give {describe(place.hint)}" if reason is None else str(reason)
    if kind == "finite_number":
        advice += ", and finite"
    return f"{place.name}={_shown(place.value)}: {advice}"


def _nearest(place: _Place) -> str:
    """Which settings a name may have been meant for; all of them if it is like none."""
    name = place.name.rpartition(".")[2]
    near = difflib.get_close_matches(name, place.siblings, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"allowed are {', '.join(place.siblings)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def describe(hint: Hint) -> str:
    """What values a field may have, in words that follow "give"."""
    origin: Any = get_origin(hint)
    if origin is Annotated:
        base, *notes = get_args(hint)
        words = next((note.words for note in notes if isinstance(note, Must)), None)
        return words or describe(base) + _bounds(notes)
    if _is_union(hint):
        return ", or ".join("None" if part is type(None) else describe(part) for part in get_args(hint))
    if origin is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    if origin in (tuple, list):
        entry, *rest = get_args(hint)
        size = f" of {len(rest) + 1} entries" if origin is tuple and rest[-1:] != [...] else ""
        return f"a list{size}, each entry {describe(entry)}"
    if dataclasses.is_dataclass(hint):
        return f"a table of settings ({', '.join(_fields(hint))})"  # type: ignore[arg-type]
    return _WORDS.get(hint, str(hint))


def _bounds(notes: Sequence[Any]) -> str:
    """Of a number: those of pydantic's `Field`."""
    limits = {name: value for note in notes for part in getattr(note, "metadata", ()) for name, value in _limits(part)}
    low = f" of {limits['ge']:g} or more" if "ge" in limits else f" above {limits['gt']:g}" if "gt" in limits else ""
    if "ge" in limits and "le" in limits:
        return f" from {limits['ge']:g} to {limits['le']:g}"
    if "le" in limits:
        return f"{low}, up to {limits['le']:g}"
    return f"{low}, below {limits['lt']:g}" if "lt" in limits else low


def _limits(part: Any) -> Iterator[tuple[str, float]]:
    return ((name, getattr(part, name)) for name in ("ge", "gt", "le", "lt") if hasattr(part, name))


def _is_union(hint: Hint) -> bool:
    origin: Any = get_origin(hint)
    return origin in (Union, types.UnionType)


def _table(hint: Hint) -> type | None:
    """The settings that a field holds: itself, or nothing, or a list of them; None if it holds values."""
    if dataclasses.is_dataclass(hint):
        return hint if isinstance(hint, type) else None
    origin: Any = get_origin(hint)
    if origin in (Annotated, list) or _is_union(hint):
        return next(filter(None, map(_table, get_args(hint))), None)
    return None


@functools.cache
def _fields(kind: type) -> dict[str, Hint]:
    """The annotation of every field, by name."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
