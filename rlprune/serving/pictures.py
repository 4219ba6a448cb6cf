"""Pictures as clients send them: decoded as `rlprune predict` decodes files, in bounded memory."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from rlprune.data.decoding import read_images
from rlprune.data.pictures import read_picture
from rlprune.data.preprocessing import Preprocessing
from rlprune.errors import DataError
from rlprune.serving.limits import Limits
from rlprune.serving.refusals import RefusedError

Image.init()  # else it knows only some of its readers
FORMATS = tuple(
    name for name in ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP") if name in Image.OPEN
)
"""Pillow's names for what is read, as far as it is built with them; other readers of its, some of
which start programs, get nothing from a client."""
_TOO_MANY_PIXELS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def decoded(
    contents: Sequence[bytes],
    image_shape: Sequence[int],
    preprocessing: Preprocessing,
    limits: Limits,
    *,
    whole: bool = False,
) -> list[Tensor]:
    """Decode pictures, and scale and cut them as a network takes them.

    Args:
        contents: of the files, B of them.
        image_shape: (C, H, W) of the network's images.
        preprocessing: the network's.
        limits: how many pixels a picture may have.
        whole: leave them as they are, for a file that scales and cuts them itself.

    Returns:
        Pixels in [0, 255] of each picture, uint8 (1, C, H, W), or of any height and width.

    Raises:
        RefusedError: one is no picture, or has too many pixels, or cannot be brought to the network's size.
    """
    mode = "L" if image_shape[0] == 1 else "RGB"
    pixels: list[Tensor] = []
    for number, content in enumerate(contents):
        name = f"picture {number}"
        if not content:
            raise RefusedError(422, f"{name} is empty: send the content of a file")
        with _opened(name, content, limits) as picture:
            _check_pixels(name, picture, image_shape, preprocessing, limits)
            if whole and sum(each[0, 0].numel() for each in pixels) + math.prod(picture.size) > limits.max_pixels:
                raise RefusedError(
                    413, f"the pictures have together more than {limits.max_megapixels:g} million pixels"
                )
            try:
                if whole:
                    pixels.append(torch.from_numpy(read_picture(name, picture, mode=mode)[None].copy()))
                else:
                    pixels.append(read_images([picture], image_shape, preprocessing))
            except DataError as error:
                raise RefusedError(422, str(error).replace("picture 0", name, 1)) from error
    return pixels


def _opened(name: str, content: bytes, limits: Limits) -> Image.Image:
    """A picture of which the header has been read."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except _TOO_MANY_PIXELS as error:
        raise _too_large(name, limits) from error
    except Exception as error:  # a header that means harm can make Pillow raise anything
        allowed = ", ".join(FORMATS)
        raise RefusedError(422, f"{name} cannot be read as an image; send one of {allowed}") from error


def _check_pixels(
    name: str, picture: Image.Image, image_shape: Sequence[int], preprocessing: Preprocessing, limits: Limits
) -> None:
    """Refuse a picture whose pixels, as it is or scaled until its shorter side fits, would take too much memory."""
    short, long = sorted(picture.size)
    side = preprocessing.resize if preprocessing.sizes else max(image_shape[1:])
    scaled = int(long * side / max(short, 1)) * side if isinstance(side, int) else 0
    if short * long > limits.max_pixels or scaled > limits.max_pixels:
        raise _too_large(name, limits)


def _too_large(name: str, limits: Limits) -> RefusedError:
    return RefusedError(
        413, f"{name} has, as it is or scaled for the network, more than {limits.max_megapixels:g} million pixels"
    )
