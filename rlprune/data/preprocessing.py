"""Preprocessing that belongs to a network: how a picture of any size becomes the numbers that it was trained on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from PIL import Image

from rlprune.errors import DataError

Size = tuple[int, int]
Channels = Literal["rgb", "bgr", "grey"]
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Names that Pillow and torchvision share."""

_MOST_PIXELS = 16384


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input: scaled, cut out, and with which statistics it is normalised.

    Sizes follow torchvision's `Resize` and `CenterCrop`, to the pixel.

    Attributes:
        resize: pixels of the shorter side, or (height, width); None scales nothing.
        crop: (height, width) of what is cut out of the middle; None takes all.
        interpolation: one of `INTERPOLATIONS`.
        channels: their order in the network, ``rgb`` or ``bgr``, or ``grey``; None takes pictures as they are.
        mean: of values in [0, 1], for each channel in the network's order, or one for all; None measures it.
        std: likewise.
        transform: one of the user's own, in place of `resize` and `crop`: PIL image -> PIL image, tensor or array, not
            normalised.
        transform_name: by which it is stored and described.

    Raises:
        DataError: a value is out of range, or two of them cannot be together.
    """

    resize: int | Size | None = None
    crop: Size | None = None
    interpolation: str = "bilinear"
    channels: Channels | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    transform: Callable[[Image.Image], Any] | None = field(default=None, compare=False)
    transform_name: str | None = None

    def __post_init__(self) -> None:
        self._unify()
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            sides = () if size is None else (size,) if isinstance(size, int) else size
            if not isinstance(sides, tuple) or (sides == size and len(sides) != 2):
                raise DataError(f"preprocess: {name} is {size!r}; give pixels, or (height, width)")
            if any(type(side) is not int or not 1 <= side <= _MOST_PIXELS for side in sides):
                raise DataError(f"preprocess: {name} is {size}; give 1 to {_MOST_PIXELS} pixels")
        if self.interpolation not in INTERPOLATIONS:
            raise DataError(f"preprocess: interpolation is {self.interpolation!r}; give {' or '.join(INTERPOLATIONS)}")
        if self.channels is not None and self.channels not in get_args(Channels):
            raise DataError(f"preprocess: channels is {self.channels!r}; give {' or '.join(get_args(Channels))}")
        if self.transform_name and (self.resize or self.crop):
            raise DataError(f"preprocess: {self.transform_name} takes the place of resize and crop; give one of them")
        _check_crop(self.resize, self.crop)
        _check_statistics(self.mean, self.std)

    def _unify(self) -> None:
        """Bring what may be given in several forms to one: lists to tuples, single numbers to what they stand for."""
        values: dict[str, Any] = {name: _numbers(name, getattr(self, name)) for name in ("mean", "std")}
        values["resize"] = tuple(self.resize) if isinstance(self.resize, list) else self.resize
        values["crop"] = tuple(self.crop) if isinstance(self.crop, list) else self.crop
        if isinstance(self.crop, int):
            values["crop"] = (self.crop, self.crop)
        if self.transform is not None and self.transform_name is None:
            values["transform_name"] = _name_of(self.transform)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def mode(self) -> str | None:
        """What pictures are converted to, ``RGB`` or ``L``; None leaves grey grey and makes everything else RGB."""
        return None if self.channels is None else "L" if self.channels == "grey" else "RGB"

    @property
    def sizes(self) -> bool:
        """Whether it says how pictures come to their size."""
        return self.resize is not None or self.crop is not None or self.transform_name is not None

    @property
    def without_statistics(self) -> Preprocessing:
        """The same but for mean and std, which an image set and a stored network hold for themselves."""
        return dataclasses.replace(self, mean=None, std=None)

    @property
    def text(self) -> str:
        """The same as text, as users give it."""
        size = "x".join
        words = [self.transform_name] if self.transform_name else []
        for name, value in (("resize", self.resize), ("crop", self.crop)):
            if value is not None:
                words.append(f"{name}={size(map(str, (value,) if isinstance(value, int) else value))}")
        if self.resize is not None:
            words.append(f"interpolation={self.interpolation}")
        words += [self.channels] if self.channels else []
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None:
                words.append(f"{name}={','.join(f'{number:.6g}' for number in numbers)}")
        return ",".join(words)

    @property
    def bgr(self) -> bool:
        """Whether the network reads blue first."""
        return self.channels == "bgr"

    def apply(self, name: str, image: Image.Image) -> Any:
        """Scale and cut a picture, or transform it as the user says.

        Args:
            name: what it is called in messages.
            image: of mode L or RGB.

        Raises:
            DataError: it is smaller than what is to be cut out; or the user's own transform fails, or is not there.
        """
        if self.transform_name is not None:
            return self._transformed(name, image)
        image = _resized(image, self.resize, Image.Resampling[self.interpolation.upper()])
        if self.crop is None:
            return image
        height, width = self.crop
        if image.height < height or image.width < width:
            raise DataError(
                f"{name} is {image.width}x{image.height} pixels, too small for crop={height}x{width}; scale it with "
                "resize, or remove it"
            )
        top = round((image.height - height) / 2)
        left = round((image.width - width) / 2)
        return image.crop((left, top, left + width, top + height))

    def check_transform(self) -> None:
        """Make sure that a transform of the user's own is there, if pictures come from one.

        Raises:
            DataError: it is not.
        """
        if self.transform_name is not None and self.transform is None:
            raise DataError(
                f"this network's pictures come from a transform of its user's own, {self.transform_name}, whose code "
                f"is stored nowhere; give it anew: preprocess={self.transform_name}"
            )

    def _transformed(self, name: str, image: Image.Image) -> Any:
        self.check_transform()
        assert self.transform is not None
        try:
            return self.transform(image)
        except Exception as error:
            raise DataError(f"{self.transform_name} fails on {name}: {type(error).__name__}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """What is not left at its default, without mean and std, as a manifest holds it."""
        defaults = {each.name: each.default for each in dataclasses.fields(self)}
        left_out = ("mean", "std", "transform")
        return {name: value for name, value in vars(self).items() if name not in left_out and value != defaults[name]}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Preprocessing:
        """What `to_json` gave, as JSON gives it back.

        Raises:
            DataError: a value is out of range.
            TypeError: it holds something else.
        """
        return cls(**stored)


def _name_of(transform: Callable[..., Any]) -> str:
    """By which a transform of the user's own is stored and described."""
    named: Any = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{named.__module__}:{named.__qualname__}"


def _numbers(name: str, value: Any) -> tuple[float, ...] | None:
    """One number, or one for each channel, as a tuple."""
    if value is None:
        return None
    numbers = (value,) if isinstance(value, int | float) else value
    if not isinstance(numbers, tuple | list) or not all(isinstance(each, int | float) for each in numbers):
        raise DataError(f"preprocess: {name} is {value!r}; give a number, or one for each channel")
    return tuple(map(float, numbers))


def _check_crop(resize: int | Size | None, crop: Size | None) -> None:
    """Refuse a crop that no picture of that size has."""
    if resize is None or crop is None:
        return
    height, width = (resize, resize) if isinstance(resize, int) else resize
    fits = min(crop) <= height if isinstance(resize, int) else crop[0] <= height and crop[1] <= width
    if not fits:
        raise DataError(f"preprocess: crop {crop[0]}x{crop[1]} is larger than resize {resize}; give no more than that")


def _check_statistics(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    if (mean is None) != (std is None):
        raise DataError(f"preprocess: mean is {mean} and std is {std}; give both or neither")
    if mean is None or std is None:
        return
    if len(mean) != len(std):
        raise DataError(f"preprocess: mean has {len(mean)} numbers and std {len(std)}; give as many of each")
    if not mean or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise DataError(f"preprocess: mean is {mean} and std is {std}; give finite numbers, and a std above 0")


def _resized(image: Image.Image, size: int | Size | None, how: Image.Resampling) -> Image.Image:
    if size is None:
        return image
    if isinstance(size, int):
        short, long = sorted(image.size)
        longer = int(size * long / short)
        size = (longer, size) if image.width <= image.height else (size, longer)
    height, width = size
    return image if image.size == (width, height) else image.resize((width, height), how)
