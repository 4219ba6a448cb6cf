"""Images side by side, each with what was spent on it and whether the answer was right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.deployment.prediction import Prediction

_TILE = 96
_BAR = 12
RIGHT = (0, 114, 178)
WRONG = (213, 94, 0)
"""Okabe and Ito's blue and vermilion, RGB."""
_TICK = ((0.1, 0.55), (0.4, 0.85), (0.9, 0.15))
_CROSS = (((0.15, 0.15), (0.85, 0.85)), ((0.15, 0.85), (0.85, 0.15)))


@dataclass(frozen=True, eq=False)
class ImageStrip:
    """Some images with their answers.

    Attributes:
        images: uint8 (N, C, H, W), C being 1 or 3.
        shares: MACs spent over the dense network's, (N,).
        correct: whether the answer is right, bool (N,).
        names: the true classes.
        answers: the predicted classes.
    """

    images: Tensor
    shares: Tensor
    correct: Tensor
    names: tuple[str, ...]
    answers: tuple[str, ...]

    @classmethod
    def of(cls, data: ImageSet, predicted: Prediction, shares: Tensor, part: Tensor) -> ImageStrip:
        """Of a set's images with the indices `part`, int64 (n,)."""
        return cls(
            data.images[part],
            shares[part],
            (predicted.labels == data.labels)[part],
            tuple(data.classes[int(label)] for label in data.labels[part]),
            tuple(data.classes[int(label)] for label in predicted.labels[part]),
        )

    def draw(self, axes: Any, title: str) -> None:
        """Draw it into axes of matplotlib: below each image a bar and the percentage of the dense network's MACs."""
        for index in range(len(self.images)):
            left = 1.12 * index
            axes.imshow(_rgb(self.images[index]), extent=(left, left + 1, 0, 1), interpolation="nearest", zorder=2)
            self._draw_answer(axes, index, left)
        axes.set(xlim=(-0.05, 1.12 * len(self.images)), ylim=(-0.85, 1.05), aspect="equal")
        axes.set_title(title, fontsize=10)
        axes.axis("off")

    def _draw_answer(self, axes: Any, index: int, left: float) -> None:
        from matplotlib.patches import Rectangle

        correct = bool(self.correct[index])
        share = float(self.shares[index])
        colour = np.array(RIGHT if correct else WRONG) / 255
        axes.add_patch(Rectangle((left, -0.16), 1, 0.11, fill=False, edgecolor="#aaaaaa", linewidth=0.6))
        axes.add_patch(Rectangle((left, -0.16), min(share, 1.0), 0.11, color=colour, linewidth=0))
        answer = f"{self.names[index]} ✓" if correct else f"{self.names[index]} ✗ ({self.answers[index]})"
        weight = "normal" if correct else "bold"
        centre = left + 0.5
        axes.text(centre, -0.2, answer, ha="center", va="top", fontsize=8.5, color=colour, fontweight=weight)
        axes.text(centre, -0.5, f"{100 * share:.0f} %", ha="center", va="top", fontsize=8, color="#333333")


def spending_strip(images: Tensor, shares: Tensor, correct: Tensor) -> NDArray[np.uint8]:
    """Images side by side as one picture, each above a bar of its share of the dense network's cost.

    Args:
        images: uint8 (N, C, H, W), C being 1 or 3.
        shares: (N,), 1 fills the bar.
        correct: bool (N,); a right answer has a blue bar and a tick in the corner, a wrong one a vermilion bar and a
            cross.

    Returns:
        uint8 (height, width, 3).
    """
    strip = Image.new("RGB", (len(images) * (_TILE + 4), _TILE + _BAR + 4), "white")
    draw = ImageDraw.Draw(strip)
    for index, (image, share, right) in enumerate(zip(images, shares.tolist(), correct.tolist(), strict=True)):
        left = index * (_TILE + 4) + 2
        tile = Image.fromarray(_rgb(image)).resize((_TILE, _TILE), Image.Resampling.NEAREST)
        strip.paste(tile, (left, 2))
        _draw_mark(draw, left + _TILE - 19, 5, right)
        top = _TILE + 4
        draw.rectangle((left, top, left + _TILE - 1, top + _BAR - 3), outline=(170, 170, 170))
        width = round(min(share, 1.0) * (_TILE - 1))
        draw.rectangle((left, top, left + width, top + _BAR - 3), fill=RIGHT if right else WRONG)
    return np.asarray(strip)


def _draw_mark(draw: ImageDraw.ImageDraw, left: int, top: int, right: bool, size: int = 16) -> None:
    """A tick or a cross on a white square."""
    draw.rectangle((left, top, left + size, top + size), fill="white")
    for line in (_TICK,) if right else _CROSS:
        corners = [(left + x * size, top + y * size) for x, y in line]
        draw.line(corners, fill=RIGHT if right else WRONG, width=3)


def _rgb(image: Tensor) -> NDArray[np.uint8]:
    """An image uint8 (C, H, W) as (H, W, 3)."""
    pixels: NDArray[np.uint8] = image.to(torch.uint8).permute(1, 2, 0).expand(-1, -1, 3).numpy()
    return pixels
