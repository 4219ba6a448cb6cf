"""The forms in which users say how pictures become a network's input: text, and transforms of torchvision and timm."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from PIL import Image

from rlprune.data.preprocessing import INTERPOLATIONS, Channels, Preprocessing, Size
from rlprune.errors import DataError
from rlprune.utils.imports import load_object

Transform = Callable[[Image.Image], Any]
"""A transform of the user's own: PIL image -> PIL image, tensor or array."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that nearly all networks trained on ImageNet expect."""
LIBRARIES = ("timm", "torchvision")
"""Words that stand for what a library says of a network that it has."""
_RANGES = {"0..1": (0.0, 1.0), "0..255": (0.0, 255.0), "-1..1": (-1.0, 1.0)}
_ALLOWED = (
    "allowed are resize=256 (the shorter side) or resize=HEIGHTxWIDTH, crop=224 or crop=HEIGHTxWIDTH (of the middle), "
    f"interpolation={'|'.join(INTERPOLATIONS)}, imagenet, mean=..,std=.. (a number, or one for each channel), "
    f"range={'|'.join(_RANGES)} (of values before mean and std), rgb, bgr, grey, timm, torchvision, and "
    "package.module:callable for a transform of your own, with commas between them"
)
_TYPE_CHANGES = frozenset(("ToTensor", "PILToTensor", "MaybeToTensor", "MaybePILToTensor", "ToImage"))
"""Transforms that move no pixel."""


def read_preprocessing(given: str | Preprocessing | Transform | None) -> Preprocessing:
    """What users give, in any form, as a `Preprocessing`.

    Args:
        given: text for `parse`; a transform of torchvision or timm, whose parts are read where all are known; any other
            callable, PIL image -> picture, whose `Normalize` at the end becomes `mean` and `std`; None for the default.

    Raises:
        DataError: it is something else, or a value is out of range.
    """
    if given is None:
        return Preprocessing()
    if isinstance(given, Preprocessing):
        return given
    if isinstance(given, str):
        return parse(given)
    if not callable(given):
        raise DataError(f"preprocess is {given!r}; give text, a Preprocessing or a transform. In text {_ALLOWED}")
    return _of_transform(given)


def parse(text: str, own: Callable[[str], Preprocessing] | None = None) -> Preprocessing:
    """Read text such as ``resize=256,crop=224,imagenet``; a later word changes what an earlier one said.

    Args:
        text: words with commas between them.
        own: for the words ``timm`` and ``torchvision``, what the library says of the network.

    Raises:
        DataError: a word is unknown, or its value is out of range.
    """
    found = Preprocessing()
    values: dict[str, Any] = {}
    for word, value in _words(text):
        if word in LIBRARIES and value is None:
            if own is None:
                raise DataError(f"preprocess={text!r}: {word} is for a network that is named as {word}:NAME")
            found = own(word)
            values = {name: value for name, value in values.items() if name == "range"}
        elif word in _WORDS and value is None:
            values |= _WORDS[word]
        elif word in _VALUES and value is not None:
            values[word] = _VALUES[word](text, word, value)
        elif ":" in word and value is None:
            values |= _named_transform(word)
        else:
            raise DataError(f"preprocess={text!r}: {word!r} is unknown; {_ALLOWED}")
    if "range" in values:
        span = _RANGES[values.pop("range")]
        if found.mean is not None and "mean" not in values:
            raise DataError(f"preprocess={text!r}: range is of values before mean and std; give these, too")
        values |= _in_unit_range(text, span, values)
    return _in_colour(dataclasses.replace(found, **values))


def _words(text: str) -> list[tuple[str, str | None]]:
    """The words of a text, each with its value; numbers on their own belong to the word before."""
    words: list[tuple[str, str | None]] = []
    for part in filter(None, map(str.strip, text.split(","))):
        word, equals, value = (each.strip() for each in part.partition("="))
        before, before_value = words[-1] if words else ("", None)
        if before_value is not None and re.fullmatch(r"[-+.\d][-+.\deE]*", part):
            words[-1] = (before, f"{before_value} {part}")
        else:
            words.append((word if ":" in word else word.lower(), value if equals else None))
    if not words:
        raise DataError(f"preprocess={text!r} says nothing; {_ALLOWED}")
    return words


def _numbers(text: str, word: str, value: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in re.split(r"[\s/;]+", value))
    except ValueError as error:
        raise DataError(f"preprocess={text!r}: {word} is {value!r}; give a number, or one for each channel") from error


def _size(text: str, word: str, value: str) -> int | Size:
    """``224`` or ``224x320``, height first."""
    if not re.fullmatch(r"\d+(x\d+)?", value):
        raise DataError(f"preprocess={text!r}: {word} is {value!r}; give pixels, such as 224, or HEIGHTxWIDTH")
    return _of_size([int(side) for side in value.split("x")])


def _chosen(text: str, word: str, value: str, allowed: Any) -> str:
    if value.lower() not in allowed:
        raise DataError(f"preprocess={text!r}: {word} is {value!r}; give {' or '.join(allowed)}")
    return value.lower()


_WORDS: dict[str, dict[str, Any]] = {
    "imagenet": {"mean": IMAGENET[0], "std": IMAGENET[1]},
    **{name: {"channels": name} for name in get_args(Channels)},
}
_VALUES: dict[str, Callable[[str, str, str], Any]] = {
    "resize": _size,
    "crop": lambda text, word, value: _both_sides(_size(text, word, value)),
    "interpolation": lambda text, word, value: _chosen(text, word, value, INTERPOLATIONS),
    "range": lambda text, word, value: _chosen(text, word, value, _RANGES),
    "mean": _numbers,
    "std": _numbers,
}


def _in_unit_range(text: str, span: tuple[float, float], values: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and std of values in another range, as those of the same values in [0, 1]."""
    low, high = span
    if ("mean" in values) != ("std" in values):
        raise DataError(f"preprocess={text!r}: give mean and std, or neither")
    return {
        "mean": tuple((each - low) / (high - low) for each in values.get("mean", (0.0,))),
        "std": tuple(each / (high - low) for each in values.get("std", (1.0,))),
    }


def _named_transform(path: str) -> dict[str, Any]:
    """What a path names: a transform, or a class or function that needs no arguments and returns one."""
    given = _of_transform(load_object(path, DataError))
    if given.transform is not None:
        given = dataclasses.replace(given, transform_name=path)
    values = {each.name: getattr(given, each.name) for each in dataclasses.fields(given)}
    return {name: value for name, value in values.items() if value is not None}


def _of_transform(transform: Transform) -> Preprocessing:
    """A transform's own values, where all its parts are known; else the transform, but for `Normalize` at its end."""
    kind: Any = type(transform)
    if kind.__name__ == "ImageClassification" and hasattr(transform, "resize_size"):
        return _of_preset(transform)
    parts = list(getattr(transform, "transforms", ()))
    values: dict[str, Any] = {}
    if parts and type(parts[-1]).__name__ == "Normalize":
        end = parts.pop()
        values = {"mean": tuple(map(float, end.mean)), "std": tuple(map(float, end.std))}
        transform = kind(parts)
    known = _known_parts(parts) if parts or values else None
    if known is not None:
        return _in_colour(Preprocessing(**known, **values))
    return _in_colour(Preprocessing(transform=transform, **values))


def _in_colour(given: Preprocessing) -> Preprocessing:
    """The same, with grey pictures made RGB where there are statistics for three channels."""
    three = given.channels is None and given.mean is not None and len(given.mean) == 3
    return dataclasses.replace(given, channels="rgb") if three else given


def _of_preset(preset: Any) -> Preprocessing:
    """The transform that comes with torchvision's weights."""
    return Preprocessing(
        resize=_of_size(preset.resize_size),
        crop=_both_sides(_of_size(preset.crop_size)),
        interpolation=_name_of(preset.interpolation),
        channels="rgb",
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _known_parts(parts: list[Any]) -> dict[str, Any] | None:
    """What a transform does, if its parts are a resize, a crop of the middle and changes of type, in this order."""
    values: dict[str, Any] = {}
    for part in parts:
        kind = type(part).__name__
        if kind == "Resize" and not values and getattr(part, "max_size", None) is None:
            values = {"resize": _of_size(part.size), "interpolation": _name_of(part.interpolation)}
        elif kind == "CenterCrop" and "crop" not in values:
            values["crop"] = _both_sides(_of_size(part.size))
        elif kind not in _TYPE_CHANGES and not (kind in ("ToDtype", "ConvertImageDtype") and _to_floats(part)):
            return None
    return values


def _to_floats(part: Any) -> bool:
    """Whether a change of type brings pixels to [0, 1]."""
    return bool(getattr(part, "scale", True)) and "float" in str(part.dtype)


def _of_size(size: Any) -> int | Size:
    """One number, or a list of one or two, as torchvision has sizes."""
    sides = (size,) if isinstance(size, int) else tuple(size)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _both_sides(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else size


def _name_of(interpolation: Any) -> str:
    return str(getattr(interpolation, "value", interpolation)).replace("-exact", "")
