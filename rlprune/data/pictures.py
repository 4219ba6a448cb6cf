"""One picture in any form, as its viewer would see it, in 8 bits per channel."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from rlprune.errors import DataError
from rlprune.utils.files import open_regular, strange_content

BACKGROUND = "white"
"""What shows through transparent pixels."""

FOREIGN_SUFFIXES = frozenset(
    (
        *(".heic", ".heif", ".jxl", ".svg", ".eps", ".ps", ".wmf", ".emf", ".pdf", ".exr", ".hdr", ".dcm", ".nii"),
        *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".npy", ".mat"),
    )
)
"""Pictures that are not read unless a plug-in of Pillow's reads them; a folder that has some is told so."""

_NO_PICTURES = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
"""Formats that Pillow knows by name alone, or reads by starting another program."""

_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_GREY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")


@cache
def suffixes() -> frozenset[str]:
    """What names of pictures end with, in lower case: every suffix that Pillow, with its plug-ins, reads."""
    formats = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in formats.items() if kind in Image.OPEN and kind not in _NO_PICTURES)


def why_unreadable(path: Path) -> str | None:
    """Why a file cannot be a picture, from its first bytes alone; None if it looks like one.

    A file that is damaged further on is told from a picture only by `read_picture`.
    """
    try:
        with open_regular(path) as file, Image.open(file):
            return None
    except Exception as error:
        return _reason(str(path), path, error)


def read_picture(
    name: str, item: Any, frame: Callable[[str, Image.Image], Any] | None = None, mode: str | None = None
) -> NDArray[np.uint8]:
    """Turn a picture in any form into pixels.

    Orientation tags are obeyed, transparent pixels are laid on `BACKGROUND`, 16 bits become 8, other colour spaces RGB,
    and of animations the first frame is taken.

    Args:
        name: what it is called in messages.
        item: a path, an open file, a PIL image, a tensor (H, W) or (C, H, W), or an array (H, W), (H, W, C) or
            (C, H, W); numbers are uint8, or float in [0, 1].
        frame: scales and cuts it, given its name and a PIL image of mode L or RGB, such as `cover` of a size; it may
            return whatever `item` may be. None keeps it as it is.
        mode: ``L`` or ``RGB``; None takes grey for grey pictures and RGB for all others.

    Returns:
        uint8 (1, H, W) or (3, H, W).

    Raises:
        DataError: it cannot be read, or has values that cannot be told to be a picture's.
    """
    if isinstance(item, Tensor | np.ndarray):
        item = _image_of_array(name, item)
    try:
        with item if isinstance(item, Image.Image) else Image.open(_opened(name, item)) as image:
            image.seek(0)
            image.load()
            file_format = image.format
            image = _upright(image)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{name} cannot be read as an image ({_reason(name, item, error)}); replace or remove it"
        ) from error
    if not all(image.size):
        raise DataError(f"{name} has {image.width}x{image.height} pixels, which is no picture; replace or remove it")
    image = _eight_bits(name, image, file_format)
    grey = image.mode in _GREY
    image = image.convert(mode or ("L" if grey else "RGB"))
    if frame is not None:
        framed = frame(name, image)
        if not isinstance(framed, Image.Image):
            return read_picture(name, framed, mode=mode)
        image = framed if framed.mode in ("L", "RGB") else framed.convert("RGB")
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _opened(name: str, item: Any) -> Any:
    """What Pillow reads a picture from; a pipe, which it would wait for, is an error."""
    if isinstance(item, bytes | bytearray | memoryview):
        return io.BytesIO(item)
    if isinstance(item, str | os.PathLike):
        open_regular(Path(item)).close()
        return item
    if not hasattr(item, "read"):
        what = "nothing" if item is None else f"a {type(item).__name__}"
        raise DataError(
            f"{name} has {what} for a picture; give a path, the bytes of a file, a PIL image, a tensor or an array, or "
            "remove it"
        )
    return item


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its orientation tag says; as it is stored if its tags are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image.copy()


def _reason(name: str, item: Any, error: Exception) -> str:
    strange = strange_content(item) if isinstance(item, Path) and item.is_file() else None
    if strange:
        return f"it {strange}"
    named = f"{item}: " if isinstance(item, str | Path) and str(item) not in name else ""
    return named + (getattr(error, "strerror", None) or str(error))


def _eight_bits(name: str, image: Image.Image, file_format: str | None) -> Image.Image:
    """The picture in mode L, RGB, or one that converts to RGB as it should, with nothing transparent left."""
    if image.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(image))
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return _on_background(image)
    if image.mode == "I" and file_format in ("PNG", "PPM"):  # their 16 bits, as older versions of Pillow give them
        return _from_16_bits(np.asarray(image).clip(0, 65535).astype(np.uint16))
    if image.mode == "F":
        return Image.fromarray(_bytes_of_floats(name, np.asarray(image)))
    if image.mode == "I":
        raise DataError(f"{name} has pixels of mode I, 32 bits; save it with 8 or 16 bits per channel")
    if image.mode == "LAB":  # 8 bits of it are too coarse to go back
        raise DataError(f"{name} has pixels of mode LAB; save it in grey or RGB")
    return image


def _on_background(image: Image.Image) -> Image.Image:
    grey = image.mode in _GREY
    image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    below = Image.new("RGBA", image.size, BACKGROUND)
    below.alpha_composite(image)
    return below.convert("L" if grey else "RGB")


def _from_16_bits(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _image_of_array(name: str, item: Tensor | NDArray[Any]) -> Image.Image:
    """A picture of numbers in (H, W), (C, H, W) or, of NumPy, (H, W, C)."""
    kind = "a tensor" if isinstance(item, Tensor) else "an array"
    dtype = item.dtype
    values = item.detach().cpu().float().numpy() if isinstance(item, Tensor) and item.is_floating_point() else item
    pixels = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    pixels = _channels_last(name, kind, pixels)
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = _bytes_of_floats(name, pixels)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint16:
        pixels = np.asarray(_from_16_bits(pixels))
    if pixels.dtype != np.uint8:
        raise DataError(f"{name} is {kind} of {dtype}; return uint8, or float in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _channels_last(name: str, kind: str, pixels: NDArray[Any]) -> NDArray[Any]:
    """The numbers as (H, W), (H, W, 3) or (H, W, 4)."""
    shape = pixels.shape
    wanted = "(C, H, W) with 1 or 3 channels" if kind == "a tensor" else "(H, W) or (H, W, C) with 1, 3 or 4 channels"
    if pixels.ndim == 3:
        if kind == "an array" and shape[2] in (1, 3):
            pixels = pixels[:, :, 0] if shape[2] == 1 else pixels
        elif shape[0] in (1, 3):
            pixels = pixels[0] if shape[0] == 1 else pixels.transpose(1, 2, 0)
        elif kind == "a tensor" or shape[2] != 4:
            raise DataError(f"{name} is {kind} of shape {tuple(shape)}; return {wanted}")
    if pixels.ndim not in (2, 3) or pixels.size == 0:
        raise DataError(f"{name} is {kind} of shape {tuple(shape)}; return {wanted}")
    return pixels


def _bytes_of_floats(name: str, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Float values in [0, 1] as uint8 of the same shape."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise DataError(
            f"{name} has float values from {low:.4g} to {high:.4g}; return values in [0, 1] (leave normalisation "
            "out of the dataset's transform) or uint8"
        )
    scaled: NDArray[np.uint8] = (pixels.astype(np.float32) * np.float32(255)).round().astype(np.uint8)
    return scaled


def cover(height: int, width: int) -> Callable[[str, Image.Image], Image.Image]:
    """What scales a picture until it covers a size, and cuts its middle out, for `read_picture`."""
    return lambda _, image: image if image.size == (width, height) else _cover(image, height, width)


def _cover(image: Image.Image, height: int, width: int) -> Image.Image:
    scale = max(width / image.width, height / image.height)
    scaled_width = max(width, round(image.width * scale))
    scaled_height = max(height, round(image.height * scale))
    left = (scaled_width - width) // 2
    top = (scaled_height - height) // 2
    scaled = image.resize((scaled_width, scaled_height), Image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + width, top + height))
