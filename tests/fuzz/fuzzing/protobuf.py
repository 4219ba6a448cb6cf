"""Alters an ONNX file as the messages that it consists of."""

from __future__ import annotations

from random import Random
from typing import Any

import onnx
from google.protobuf.message import DecodeError

__all__ = ["DecodeError", "altered", "draw"]

_NUMBERS = (-1, 0, 1, 2, 3, 7, 16, 255, 2**31 - 1, 2**62, 10**9)
_TEXTS = ("", "x", "images", "logits", "Loop", "If", "Identity", "rlprune", "ai.onnx.ml", "/etc/passwd", "a" * 100_000)
_OPERATORS = """Abs Add Cast Concat ConstantOfShape Conv Expand EyeLike Gather If Log Loop MatMul NonZero OneHot Pad Pow
    RandomNormal Range Reshape Resize Scan ScatterND SequenceAt Slice Split StringNormalizer Tile TopK Transpose
    Upsample""".split()


def draw(random: Random, content: bytes) -> list[Any]:
    """The arguments of a change: a path of fields and indices, and what is done there."""
    message: Any = onnx.load_from_string(content)
    path: list[Any] = []
    while True:
        fields = [(field, value) for field, value in message.ListFields() if not field.name.endswith("_data")]
        if not fields:
            return [path, "clear"]
        field, value = random.choice(fields)
        path.append(field.name)
        if _is_list(field):
            path.append(random.randrange(len(value)))
            value = value[path[-1]]
        if field.message_type is None:
            return [path, "set", _scalar(random, field)]
        if random.random() < 0.12:
            return [path, random.choice(("clear", "double", "outside"))]
        message = value


def _scalar(random: Random, field: Any) -> Any:
    if field.name == "op_type":
        return random.choice(_OPERATORS)
    if field.cpp_type == field.CPPTYPE_STRING:
        return random.choice(_TEXTS)
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return random.choice((0.0, -1.0, 1e30, 1e-30))
    return random.choice(_NUMBERS)


def altered(content: bytes, path: list[Any], how: str, new: Any = None) -> bytes:
    """A file's content after a change.

    Raises:
        LookupError, ValueError, TypeError, AttributeError, DecodeError: the change cannot be made.
    """
    model = onnx.load_from_string(content)
    owner: Any = model
    *before, last = path
    for key in before:
        owner = owner[key] if isinstance(key, int) else getattr(owner, key)
    if how == "set":
        old = owner[last] if isinstance(last, int) else getattr(owner, last)
        new = new.encode() if isinstance(old, bytes) else new
        owner.__setitem__(last, new) if isinstance(last, int) else setattr(owner, last, new)
    elif how == "clear" and isinstance(last, int):
        del owner[last]
    elif how == "clear":
        owner.ClearField(last)
    elif how == "double" and isinstance(last, int):
        owner.add().CopyFrom(owner[last])
    elif how == "outside":
        _store_outside(model)
    return bytes(model.SerializeToString())


def _store_outside(model: Any) -> None:
    """Let the first tensors that are constants say that their numbers stand in another file."""
    nodes = [node for function in model.functions for node in function.node if node.op_type == "Constant"]
    for tensor in [each.t for node in nodes for each in node.attribute if each.HasField("t")][:3]:
        for field in ("raw_data", "float_data", "int64_data"):
            tensor.ClearField(field)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "/etc/passwd"), ("offset", "0"), ("length", "64")):
            tensor.external_data.add(key=key, value=value)


def _is_list(field: Any) -> bool:
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
