"""Test images as small pictures that stand in a page, each with its class, the answer and what it cost."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from rlprune.data.image_set import ImageSet

_MOST_PIXELS = 160
"""Of a side; larger images are made smaller, so that the page stays small."""


@dataclass(frozen=True)
class Picture:
    """A test image of the page.

    Attributes:
        source: the picture as a `data:` address of a PNG.
        name: its class.
        answer: what was answered.
        correct: whether that is its class.
        share: MACs spent over the dense network's.
        alt: what it shows, in words.
    """

    source: str
    name: str
    answer: str
    correct: bool
    share: float
    alt: str


def pictures(data: ImageSet, shares: Tensor, labels: Tensor, indices: Sequence[int]) -> list[Picture]:
    """Some images of a set.

    Args:
        data: images, C being 1 (grey) or 3 (colour); of others the first channel is shown.
        shares: MACs spent on each over the dense network's, (N,).
        labels: what was answered, int64 (N,).
        indices: which.
    """
    return [_picture(data, index, float(shares[index]), int(labels[index])) for index in indices]


def _picture(data: ImageSet, index: int, share: float, label: int) -> Picture:
    true = int(data.labels[index])
    name, answer = data.classes[true], data.classes[label]
    said = "recognised" if label == true else f"taken for {answer}"
    alt = f"test image {index}: {name}, {said}, {100 * share:.0f} % of the multiply-adds"
    return Picture(_png(data.images[index]), name, answer, label == true, share, alt)


def _png(image: Tensor) -> str:
    """A picture uint8 (C, H, W) as an address that holds it."""
    pixels = image if image.shape[0] in (1, 3) else image[:1]
    array = pixels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
