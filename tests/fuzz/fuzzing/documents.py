"""The JSON of a folder or ONNX file: JSON files, headers of safetensors files, the notes of an ONNX file."""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from typing import Any

import onnx

from fuzzing.values import RAW

Path = list[Any]
"""Keys and indices that lead to an entry."""


@lru_cache(maxsize=64)
def read(name: str, content: bytes) -> Any:
    """The JSON in a file, not to be changed.

    Raises:
        ValueError: there is none.
    """
    if name.endswith(".onnx"):
        return json.loads(_notes(onnx.load_from_string(content)).value)
    if name.endswith(".safetensors"):
        return json.loads(content[8 : 8 + _header_length(content)])
    return json.loads(content)


def write(name: str, content: bytes, value: Any) -> bytes:
    """The file's content with other JSON in it, what `@name` stands for in place."""
    text = json.dumps(value)
    for raw, stands_for in RAW.items():
        text = text.replace(f'"@{raw}"', stands_for)
    if name.endswith(".onnx"):
        model = onnx.load_from_string(content)
        _notes(model).value = text
        return bytes(model.SerializeToString())
    packed = text.replace('"@again:', '"').encode()
    if name.endswith(".safetensors"):
        return struct.pack("<Q", len(packed)) + packed + content[8 + _header_length(content) :]
    return packed


def _notes(model: onnx.ModelProto) -> Any:
    return next(each for each in model.metadata_props if each.key == "rlprune")


def data_of(content: bytes, tensor: str) -> slice:
    """Where a safetensors file has the numbers of a tensor."""
    start = 8 + _header_length(content)
    first, last = json.loads(content[8:start])[tensor]["data_offsets"]
    return slice(start + first, start + last)


def _header_length(content: bytes) -> int:
    return int(struct.unpack("<Q", content[:8])[0])


def at(value: Any, path: Path) -> Any:
    """The entry that a path leads to."""
    for key in path:
        value = value[key]
    return value


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all entries below the root."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, each in items for found in ((*path, key), *paths(each, (*path, key)))]
