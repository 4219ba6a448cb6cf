"""What `predict` takes: files, folders, pictures and pixels, which become batches one after another."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlprune.data.decoding import read_image
from rlprune.data.folders import COMMON_SUFFIXES, pictures_below
from rlprune.data.pictures import read_picture, why_unreadable
from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.images import as_batch, check_storage, kind_in_words
from rlprune.errors import DataError
from rlprune.utils.notes import say

Picture = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor
"""A file, a folder of files, or a picture in memory; an array (H, W) or (H, W, C), or a tensor (C, H, W)."""
Pictures = Picture | Iterable[Picture]
"""One or many of them, mixed as you like; or pixels (B, C, H, W) at the network's size."""

BATCH_SIZE = 64
"""How many pictures are in memory at a time."""
_MOST_NAMED = 3
_LONGEST_NAME = 300
_MOST_BYTES = 2**27
"""Of pictures that are in memory together, but for one more."""
_FORMS = "name files or folders, or give pictures of PIL, arrays (H, W, C) or tensors (C, H, W)"
_Named = tuple[str, Any]
_Read = np.ndarray[Any, np.dtype[np.uint8]]


class Batch(NamedTuple):
    """Pictures at the network's size.

    Attributes:
        names: of each: its path, or ``picture 0`` and so on where it is from no file.
        pixels: uint8 in [0, 255] or, of pixels that were given so, float in [0, 1], (B, C, H, W).
    """

    names: tuple[str, ...]
    pixels: Tensor


def batches(
    images: Pictures,
    image_shape: tuple[int, ...],
    preprocessing: Preprocessing,
    *,
    batch_size: int = BATCH_SIZE,
    skip_unreadable: bool = False,
    floats: bool = True,
    resized: bool = True,
) -> Iterator[Batch]:
    """Find pictures, look whether all of them can be read, and prepare them batch by batch as the network was trained.

    Folders are searched as the data loader does, by name and with what lies below. Numbers in the shape (C, H, W) of
    the network's images, alone or as (B, C, H, W), are pixels and taken as they are. Everything else is a picture.

    Args:
        images: the pictures.
        image_shape: (C, H, W) of the network's images.
        preprocessing: the network's.
        batch_size: how many pictures are in memory at a time, 1 or more.
        skip_unreadable: leave out files that cannot be read, and say which; otherwise they are an error.
        floats: whether pixels may be floats.
        resized: whether pictures are brought to the network's size; otherwise batches have pictures of one size each.

    Raises:
        DataError: there are no pictures; something else was given; or files cannot be read, which is looked for in
            their first bytes before anything else begins, and again when they are decoded.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise DataError(f"batch_size is {batch_size!r}; give a whole number of 1 or more")
    if isinstance(images, Tensor | np.ndarray) and tuple(images.shape[-3:]) == tuple(image_shape) and images.ndim < 5:
        pixels = images if images.ndim == 4 else images[None]
        return _split(as_batch(pixels, image_shape, preprocessing, floats=floats), batch_size)
    items = _items(images)
    if isinstance(items, Sequence):
        preprocessing.check_transform()
        _check(_named(items), files=not skip_unreadable)
    if resized:
        read = partial(_pixels, image_shape=image_shape, preprocessing=preprocessing)
    else:
        read = partial(read_picture, frame=None, mode=_mode(image_shape))
    return _prepared(_named(items), read, batch_size, skip_unreadable)


def names_of(files: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The paths of all pictures that files and folders stand for, in the order and by the names of a prediction.

    Args:
        files: files, which need not be there, and folders, which are searched with all that lies below them.

    Raises:
        DataError: there are none, or a folder has none, or cannot be searched.
    """
    names = [name for name, _ in _named(files)]
    if not names:
        raise DataError("there are no images; name at least one file")
    return names


def _split(pixels: Tensor, batch_size: int) -> Iterator[Batch]:
    for start in range(0, len(pixels), batch_size):
        part = pixels[start : start + batch_size]
        yield Batch(tuple(f"picture {start + i}" for i in range(len(part))), part)


def _items(images: Any) -> Iterable[Any]:
    """What was given, one after another; as a sequence wherever that is at hand, so that it can be looked through."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.dtype.kind in "UO":  # of paths
        return list(images.ravel())
    if isinstance(images, Tensor | np.ndarray):
        if isinstance(images, Tensor):
            check_storage(images)
        return [images[i] for i in range(len(images))] if images.ndim == 4 else [images]
    if isinstance(images, bytes | Mapping) or not isinstance(images, Iterable):
        raise DataError(f"images are {kind_in_words(images)}; {_FORMS}")
    if isinstance(images, Sequence):
        return images
    some = iter(images)
    first = next(some, None)
    if first is None:
        return []
    whole = itertools.chain([first], some)
    return list(whole) if isinstance(first, str | os.PathLike) else whole


def _named(items: Iterable[Any]) -> Iterator[_Named]:
    """Pictures with their names; folders give the files in them."""
    for number, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            yield from ((str(path), path) for path in _files(Path(item)))
        elif isinstance(item, Image.Image | np.ndarray | Tensor):
            if isinstance(item, Tensor):
                check_storage(item)
            yield f"picture {number}", item
        else:
            raise DataError(f"picture {number} is {kind_in_words(item)}; {_FORMS}")


def _files(path: Path) -> Iterator[Path]:
    """A file, or all pictures below a folder."""
    try:
        if not path.is_dir():
            yield path
            return
        found = False
        for file in pictures_below(path):
            found = True
            yield file
    except OSError as error:
        shown = _shown(str(path))
        raise DataError(f"{shown} cannot be searched for pictures ({error.strerror}); name another one") from error
    if not found:
        raise DataError(f"{path} has no pictures ({' '.join(COMMON_SUFFIXES)}, ...); name a folder that has some")


def _check(pictures: Iterator[_Named], *, files: bool) -> None:
    """Make sure that there are pictures, and that all of them can be read as far as that can be told at once.

    Args:
        pictures: all of them.
        files: whether to look into files.

    Raises:
        DataError: there are none, or some cannot be read.
    """
    n_pictures = n_wrong = 0
    wrong: list[str] = []
    for name, item in pictures:
        n_pictures += 1
        why = why_unreadable(item) if files and isinstance(item, Path) else None
        if why is not None:
            n_wrong += 1
            wrong = [*wrong, f"{_shown(name)} cannot be read as an image ({why})"][:_MOST_NAMED]
    if not n_pictures:
        raise DataError("there are no images; name at least one file")
    if wrong:
        more = f"; and {n_wrong - len(wrong)} more of {n_pictures} cannot" if n_wrong > len(wrong) else ""
        it = "it" if n_wrong == 1 else "them"
        raise DataError(f"{'; '.join(wrong)}{more}; replace or remove {it}, or give skip_unreadable=True")


def _shown(name: str) -> str:
    """A path for a message; a very long one is cut off."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _prepared(
    pictures: Iterator[_Named], read: Callable[[str, Any], _Read], batch_size: int, skip_unreadable: bool
) -> Iterator[Batch]:
    """The pictures as they are read, so many at a time, and those of one size together."""
    names: list[str] = []
    pixels: list[_Read] = []
    n_taken, first_error = 0, None
    for name, item in pictures:
        try:
            picture = read(name, item)
        except DataError as error:
            if not isinstance(item, Path):
                raise
            if not skip_unreadable:
                raise DataError(f"{error}, or give skip_unreadable=True") from error
            first_error = first_error or error
            say(f"left out: {error}")
            continue
        if names and picture.shape != pixels[0].shape:
            yield _batch(names, pixels)
            names, pixels = [], []
        names.append(name)
        pixels.append(picture)
        n_taken += 1
        if len(names) == batch_size or _is_large(pixels):
            yield _batch(names, pixels)
            names, pixels = [], []
    if names:
        yield _batch(names, pixels)
    if not n_taken:
        raise first_error or DataError("there are no images; name at least one file")


def _batch(names: list[str], pixels: list[_Read]) -> Batch:
    return Batch(tuple(names), torch.from_numpy(np.stack(pixels)))


def _is_large(pixels: list[_Read]) -> bool:
    return sum(picture.nbytes for picture in pixels) > _MOST_BYTES


def _pixels(name: str, item: Any, image_shape: tuple[int, ...], preprocessing: Preprocessing) -> _Read:
    """A picture as the network takes it, uint8 (C, H, W)."""
    if isinstance(item, Tensor | np.ndarray) and tuple(item.shape) == tuple(image_shape):
        return read_picture(name, item, None, _mode(image_shape))
    return read_image(name, item, image_shape, preprocessing)


def _mode(image_shape: tuple[int, ...]) -> str:
    """What pictures are converted to."""
    return "L" if image_shape[0] == 1 else "RGB"
