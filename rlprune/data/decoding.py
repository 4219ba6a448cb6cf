"""Images in any form, with their labels, decoded into one uint8 array."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rlprune.data.pictures import cover, read_picture
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.streamed.records import Record, Records
from rlprune.errors import DataError


class TooLargeError(Exception):
    """The pixels of all images need more memory than they may take; it has the number of bytes."""


@dataclass(frozen=True)
class Source:
    """Images that are known but not yet read.

    Attributes:
        n_train: how many records to learn from; they come first.
        n_test: how many records of the source's own test split, which follow; 0 where it has none.
        records: every record, once.
        classes: class names in the order of the labels; None where nothing names them.
        n_validation: how many records of the source's own validation split, which come last; 0 where it has none, or
            where they test.
        open: gives the same records in any order.
    """

    n_train: int
    n_test: int
    records: Iterable[Record]
    classes: tuple[str, ...] | None
    n_validation: int = 0
    open: Callable[[], Records] | None = None


def decode(
    source: Source,
    slots: Sequence[int],
    image_size: int | None,
    preprocessing: Preprocessing | None = None,
    most: float = math.inf,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read every image of a source into its row of one array.

    Args:
        source: what to read, N records.
        slots: for each record the row that it goes to, a permutation of 0..N-1.
        image_size: pixels of height and width, reached by scaling the shorter side and cropping the centre; None keeps
            the images as they are.
        preprocessing: how they come to their size where it says so, in place of `image_size`; and their channels.
        most: bytes that the pixels may take.

    Returns:
        Pixels uint8 (N, C, H, W), where C is 1 if all images are grey and otherwise 3; labels int64 (N,).

    Raises:
        TooLargeError: they would take more.
        DataError: an image is damaged or of another size than the first, or a label is not a whole number in range.
    """
    preprocessing = preprocessing or Preprocessing()
    frame = None if image_size is None else cover(image_size, image_size)
    if preprocessing.sizes:
        frame = preprocessing.apply
    pixels = np.empty((0, 1, 0, 0), np.uint8)
    labels = np.empty(len(slots), np.int64)
    first = ""
    for (name, item, label), slot in zip(source.records, slots, strict=True):
        image = read_picture(name, item, frame, preprocessing.mode)
        if not first:
            first = name
            pixels = _allocate((len(slots), *image.shape), most)
        if image.shape[1:] != pixels.shape[2:]:
            height, width = image.shape[1:]
            first_height, first_width = pixels.shape[2:]
            raise DataError(
                f"{name} is {width}x{height} pixels but {first} is {first_width}x{first_height}; all must be of one "
                "size: set image_size, or preprocess with a crop, to scale and crop them"
            )
        if len(image) > pixels.shape[1]:  # the first image in colour: the grey ones so far become colour too
            grey = pixels
            pixels = _allocate((len(slots), *image.shape), most)
            pixels[...] = grey
        pixels[slot] = image
        labels[slot] = _label(name, label, source.classes)
    return pixels, labels


def read_images(
    paths: Sequence[str | Path | Image.Image], image_shape: Sequence[int], preprocessing: Preprocessing | None = None
) -> Tensor:
    """Read image files, or pictures in memory, at the size that a network takes.

    They are scaled and cut as the network's preprocessing says. Where it says nothing, a file of the right size is
    taken as it is; another is scaled until it covers it, and its middle is cut out.

    Args:
        paths: the files, B of them, or PIL images.
        image_shape: (C, H, W) of the network's images, with C = 1 or 3.
        preprocessing: the network's.

    Returns:
        Pixels in [0, 255], uint8 (B, C, H, W).

    Raises:
        DataError: there are no files; a file is missing or not an image, or comes to another size than the network
            takes; or the network takes images that have neither one nor three channels.
    """
    if not paths:
        raise DataError("there are no images; name at least one file")
    items = [path if isinstance(path, Image.Image) else Path(path) for path in paths]
    names = [f"picture {i}" if isinstance(item, Image.Image) else str(item) for i, item in enumerate(items)]
    pictures = [read_image(*pair, image_shape, preprocessing) for pair in zip(names, items, strict=True)]
    return torch.from_numpy(np.stack(pictures))


def read_image(
    name: str, item: Any, image_shape: Sequence[int], preprocessing: Preprocessing | None = None
) -> NDArray[np.uint8]:
    """Read one picture at the size that a network takes, as `read_images` does.

    Args:
        name: what it is called in messages.
        item: a picture in any form that `rlprune.data.pictures.read_picture` takes.
        image_shape: (C, H, W) of the network's images, with C = 1 or 3.
        preprocessing: the network's.

    Returns:
        Pixels in [0, 255], uint8 (C, H, W).

    Raises:
        DataError: as for `read_images`.
    """
    n_channels, height, width = image_shape
    if n_channels not in (1, 3):
        raise DataError(f"the network takes images of shape {tuple(image_shape)}; files become grey or RGB ones")
    frame = preprocessing.apply if preprocessing is not None and preprocessing.sizes else cover(height, width)
    picture = read_picture(name, item, frame, "L" if n_channels == 1 else "RGB")
    if picture.shape != tuple(image_shape):
        size = f"{picture.shape[2]}x{picture.shape[1]}"
        raise DataError(
            f"{name} comes to {size} pixels by the network's preprocessing, which takes {width}x{height}; cut it "
            "to that shape first"
        )
    return picture


def _allocate(shape: tuple[int, ...], most: float) -> NDArray[np.uint8]:
    if math.prod(shape) > most:
        raise TooLargeError(math.prod(shape))
    return np.empty(shape, np.uint8)


def labels_of(records: Records, n: int, classes: tuple[str, ...] | None) -> NDArray[np.int64]:
    """The labels of the first n records, int64 (n,); no picture is decoded for them, where that can be helped.

    Raises:
        DataError: one is not a whole number in range.
    """
    found = records.labels()[:n]
    try:
        return np.array([_label("", label, classes) for label in found], np.int64)
    except DataError:
        for index, label in enumerate(found):
            _label(records[index][0], label, classes)
        raise


def check_same_classes(where: str, classes: tuple[str, ...] | None, other: str, others: tuple[str, ...] | None) -> None:
    """Make sure that the labels of two parts stand for the same classes, where both name them.

    Raises:
        DataError: they do not.
    """
    if classes and others and classes != others:
        place = next((i for i, pair in enumerate(zip(classes, others, strict=False)) if pair[0] != pair[1]), None)
        differ = f": label {place} is {classes[place]} and {others[place]}" if place is not None else ""
        raise DataError(
            f"{where} and {other} have different classes, {len(classes)} and {len(others)}{differ}; give both the "
            "same, in one order"
        )


def _label(name: str, label: Any, classes: tuple[str, ...] | None) -> int:
    if isinstance(label, str) and classes:
        if label in classes:
            return classes.index(label)
        raise DataError(f"{name} has the label {label!r}; allowed are {', '.join(classes[:10])}: correct or remove it")
    last = len(classes) - 1 if classes else "n-1"
    try:
        index = operator.index(label)
    except TypeError as error:
        raise DataError(f"{name} has the label {label!r}; labels are whole numbers from 0 to {last}") from error
    if index < 0 or (classes and index >= len(classes)):
        raise DataError(f"{name} has the label {index}; allowed are 0 to {last}: correct or remove it")
    return index
