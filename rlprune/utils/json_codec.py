"""Frozen dataclasses as JSON and back: the keys of a file are the names of the fields, in their order."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from rlprune.errors import RLPruneError

R = TypeVar("R", bound="JsonResult")

INLINE: dict[str, Any] = {"inline": True}
"""Metadata of a field whose own fields stand in the file beside the others, not one level below."""
_NAMES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}


class JsonResult:
    """What every result can do. A field whose default is None may be missing from a file, and is left out while None.

    Numbers are kept as they are, so that what is read and written again is the same text.
    """

    def to_json(self) -> dict[str, Any]:
        """Keys and values that `json` can write; those of inlined fields stand among the others."""
        content: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.metadata.get("inline"):
                content |= value.to_json()
            elif value is not None or not _may_be_missing(field):
                content[field.name] = _encode(value)
        return content

    @classmethod
    def from_json(cls: type[R], content: Any, source: str = "the JSON") -> R:
        """Read what `to_json` wrote.

        Args:
            content: as `json.loads` gives it.
            source: where it is from, for messages.

        Raises:
            RLPruneError: a key is missing, unknown, or holds a value of another type; the message names it.
        """
        if not isinstance(content, dict):
            raise RLPruneError(f"{source} holds {_shown(content)}; expected an object: is it a file of another kind?")
        return typing.cast(R, _decode_object(cls, content, source, ""))

    @classmethod
    def load(cls: type[R], path: str | Path) -> R:
        """Read a file.

        Raises:
            RLPruneError: it cannot be read, is no JSON, or holds something else than this kind of result.
        """
        try:
            content = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise RLPruneError(f"{path} cannot be read ({error}); expected the JSON of a {cls.__name__}") from error
        return cls.from_json(content, str(path))


def _may_be_missing(field: dataclasses.Field[Any]) -> bool:
    return field.default is None


def _encode(value: Any) -> Any:
    if isinstance(value, JsonResult):
        return value.to_json()
    if isinstance(value, dict):
        return {str(key): _encode(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(each) for each in value]
    return value


@functools.cache
def _types_of(cls: type) -> dict[str, Any]:
    """The type of each field."""
    return typing.get_type_hints(cls)


@functools.cache
def _keys_of(cls: type) -> frozenset[str]:
    """All keys that an object of this type may have in a file, those of inlined fields included."""
    keys: set[str] = set()
    for field in dataclasses.fields(cls):
        keys |= _keys_of(_types_of(cls)[field.name]) if field.metadata.get("inline") else {field.name}
    return frozenset(keys)


def _decode_object(cls: type, content: dict[str, Any], source: str, path: str) -> Any:
    unknown = [key for key in content if key not in _keys_of(cls)]
    if unknown:
        raise RLPruneError(
            f"{source} has the unknown key {path + unknown[0]!r}; "
            f"a {cls.__name__} has: {', '.join(sorted(_keys_of(cls)))}"
        )
    return _decode_fields(cls, content, source, path)


def _decode_fields(cls: type, content: dict[str, Any], source: str, path: str) -> Any:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        kind = _types_of(cls)[field.name]
        if field.metadata.get("inline"):
            values[field.name] = _decode_fields(kind, content, source, path)
        elif field.name in content:
            values[field.name] = _decode(kind, content[field.name], source, path + field.name)
        elif not _may_be_missing(field):
            raise RLPruneError(
                f"{source} lacks the key {path + field.name!r} of a {cls.__name__}: it is of another kind, or an older "
                "version wrote it; make it again with the command that wrote it"
            )
    return cls(**values)


def _decode(kind: Any, value: Any, source: str, path: str) -> Any:
    """A value as the type of its field says."""
    origin = get_origin(kind)
    arguments = get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        (kind,) = (each for each in arguments if each is not type(None))
        return None if value is None else _decode(kind, value, source, path)
    if origin is dict and isinstance(value, dict):
        return {
            _decode_key(arguments[0], key, source, path): _decode(arguments[1], each, source, f"{path}.{key}")
            for key, each in value.items()
        }
    if origin is tuple and isinstance(value, list):
        each_kind = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
        if len(each_kind) == len(value):
            pairs = zip(each_kind, value, strict=True)
            return tuple(_decode(of, each, source, f"{path}.{index}") for index, (of, each) in enumerate(pairs))
    if isinstance(kind, type) and issubclass(kind, JsonResult) and isinstance(value, dict):
        return _decode_object(kind, value, source, f"{path}.")
    if origin is None and _is_a(kind, value):
        return value
    raise RLPruneError(f"{source} has {_shown(value)} under the key {path!r}; expected {_described(kind)}")


def _decode_key(kind: Any, key: str, source: str, path: str) -> Any:
    if kind is not int:
        return key
    if not key.isdecimal():
        raise RLPruneError(f"{source} has {key!r} as a key of {path!r}; expected a whole number")
    return int(key)


def _is_a(kind: Any, value: Any) -> bool:
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind)


def _described(kind: Any) -> str:
    if get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, JsonResult)):
        return "an object"
    if get_origin(kind) is tuple:
        fixed = get_args(kind)[1:] != (...,)
        return f"a list of {len(get_args(kind))}" if fixed else "a list"
    return _NAMES.get(kind, str(kind))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
