"""Image sets that are streamed: of the same pixels as some in memory, or of files with many pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rlprune.data.image_set import ImageSet
from rlprune.data.preprocessing import Preprocessing
from rlprune.data.streamed import DatasetRecords, StreamedPixels
from rlprune.data.streamed.decoded import DecodedRecords


def read(where: str, part: Any, index: int) -> tuple[str, Any, Any]:
    return f"item {index} of {where}", part[index], 0


def streamed(data: ImageSet) -> ImageSet:
    """The same images, decoded one by one when they are asked for."""
    pictures = DecodedRecords(DatasetRecords([("some", data.images)], read), None, Preprocessing())
    return replace(data, images=StreamedPixels((pictures,), np.arange(len(data)), tuple(data.images.shape[1:])))


def write_gradients(root: Path, n: int = 12) -> Path:
    """Folders of two classes with pictures of 40x30 pixels, whose red says the column and whose green the row."""
    for index in range(n):
        columns, rows = np.meshgrid(np.arange(40), np.arange(30))
        pixels = np.stack([columns * 6, rows * 8, np.full_like(rows, index)], 2).astype(np.uint8)
        path = root / ("left", "right")[index % 2] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root
