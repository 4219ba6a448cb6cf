"""What a deployed network takes for images, and how it becomes one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlprune.data.decoding import read_images
from rlprune.data.pictures import read_picture
from rlprune.data.preprocessing import Preprocessing
from rlprune.errors import DataError

Images = Tensor | np.ndarray[Any, Any] | Image.Image | Sequence[Image.Image]
"""A batch of pixels, (B, C, H, W), or pictures of any size."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_NUMPY_FLOATS = (np.float32, np.float16, np.float64)
_PLACES = ("cpu", "cuda", "mps", "xpu")
_MOST_SHOWN = 8


def as_batch(images: Any, image_shape: tuple[int, ...], preprocessing: Preprocessing, *, floats: bool = True) -> Tensor:
    """Make one batch of what a caller gives.

    Tensors and NumPy arrays are taken in any layout of memory. Pictures, one or a list, are scaled and cut as the
    network's preprocessing says, as `rlprune predict` does with files.

    Args:
        images: uint8 in [0, 255] or float in [0, 1], (B, C, H, W); or a PIL image, or a list of them.
        image_shape: (C, H, W) of the network's images.
        preprocessing: the network's.
        floats: whether floats are taken.

    Returns:
        uint8 or float, (B, C, H, W) with B >= 1; the range of floats is not looked at.

    Raises:
        DataError: it is something else.
    """
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, list | tuple) and images and all(isinstance(each, Image.Image) for each in images):
        return read_images(images, image_shape, preprocessing)
    if isinstance(images, np.ndarray):
        images = _tensor_of(images)
    if not isinstance(images, Tensor):
        shape = _shape("B", image_shape)
        raise DataError(
            f"images are {kind_in_words(images)}; give a tensor or a NumPy array {shape}, or pictures of PIL; "
            "`predict` takes files, and arrays of any size"
        )
    check_storage(images)
    if not floats and (images.dtype != torch.uint8 or tuple(images.shape[1:]) != image_shape):
        shape, found = _shape("B", image_shape), _shown(images.shape)
        raise DataError(f"images are {images.dtype} of shape {found}; uint8 {shape} is needed")
    if images.ndim != 4 or tuple(images.shape[1:]) != image_shape or not len(images):
        shape, found = _shape("B", image_shape), _shown(images.shape)
        raise DataError(f"images have shape {found}; {shape} with B >= 1 is needed")
    return images.resolve_neg()


def as_pictures(images: Any, n_channels: int) -> tuple[list[Tensor], Tensor]:
    """Make batches of what a caller gives to something that takes pictures of any size.

    Args:
        images: uint8 in [0, 255], (B, C, any, any); or a PIL image, or a list of them.
        n_channels: of the network's images, C; 1 or 3 where pictures of PIL are given.

    Returns:
        Batches uint8 (n, C, height, width), each of one size, B >= 1 images together; and for each image given its
        row among all of theirs, int64 (B,).

    Raises:
        DataError: it is something else.
    """
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, list | tuple) and images and all(isinstance(each, Image.Image) for each in images):
        return _by_size(images, n_channels)
    sizes = tuple(getattr(images, "shape", ()))[2:4]
    known = sizes if len(sizes) == 2 and all(sizes) else ("H", "W")
    batch = as_batch(images, (n_channels, *known), Preprocessing(), floats=False)
    return [batch], torch.arange(len(batch))


def _by_size(images: Sequence[Image.Image], n_channels: int) -> tuple[list[Tensor], Tensor]:
    """Pictures in batches of one size each, and the row of each."""
    if n_channels not in (1, 3):
        raise DataError(f"the network takes images of {n_channels} channels; pictures become grey or RGB ones")
    groups: dict[tuple[int, ...], list[int]] = {}
    pixels = []
    for number, image in enumerate(images):
        pixels.append(read_picture(f"picture {number}", image, None, "L" if n_channels == 1 else "RGB"))
        groups.setdefault(pixels[-1].shape, []).append(number)
    batches = [torch.from_numpy(np.stack([pixels[number] for number in group])) for group in groups.values()]
    given = torch.tensor([number for group in groups.values() for number in group])
    return batches, given.argsort()


def check_storage(images: Tensor) -> None:
    """Refuse tensors whose numbers are not there as they are: sparse, quantised, without memory, of another type."""
    if images.is_quantized or images.layout != torch.strided or images.is_nested:
        kind = "quantised" if images.is_quantized else "nested" if images.is_nested else str(images.layout)
        raise DataError(f"images are a {kind} tensor; give a dense one, such as images.to_dense()")
    if images.device.type not in _PLACES:
        raise DataError(f"images are on the device {images.device}, which holds no numbers to read; give images.cpu()")
    if images.dtype != torch.uint8 and images.dtype not in _FLOATS:
        raise DataError(
            f"images are {images.dtype}; give uint8 in [0, 255] (images.to(torch.uint8)) or float in [0, 1]"
        )


def _tensor_of(images: np.ndarray[Any, Any]) -> Tensor:
    """A NumPy array as a tensor, without a copy where it can be."""
    if isinstance(images, np.ma.MaskedArray):
        raise DataError("images are a masked array; give its numbers, such as images.filled(0)")
    native = images.astype(images.dtype.newbyteorder("="), copy=False)
    if native.dtype not in (np.uint8, *_NUMPY_FLOATS):
        raise DataError(f"images are a NumPy array of {images.dtype}; give uint8 in [0, 255] or float in [0, 1]")
    whole = native.flags.writeable and all(stride >= 0 for stride in native.strides)
    return torch.from_numpy(native if whole else native.copy())


def _shape(first: str, image_shape: tuple[int, ...]) -> str:
    return f"({', '.join([first, *map(str, image_shape)])})"


def _shown(shape: Sequence[int]) -> str:
    """A shape for a message; one of very many dimensions is cut off."""
    return str(tuple(shape)) if len(shape) <= _MOST_SHOWN else f"of {len(shape)} dimensions"


def kind_in_words(images: Any) -> str:
    """What it is, with what is in it if it is a list."""
    name = type(images).__name__
    if isinstance(images, list | tuple):
        inside = sorted({type(each).__name__ for each in images[:100]})
        return f"a {name} of {' and '.join(inside)}" if inside else f"an empty {name}"
    return name
