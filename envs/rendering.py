"""A picture of an episode: the image, the kept channels of every pass, belief against label, compute, reward.

It takes arrays and gives arrays, so it also draws what a deployed policy did.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rlprune.errors import RLPruneError

WIDTH, HEIGHT = 640, 480
"""Pixels of every picture; even, as codecs of videos want."""

Colour = tuple[int, int, int]
INK, GREY, FAINT, STRIP = (34, 34, 34), (120, 120, 120), (226, 226, 226), (245, 245, 245)
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)
PASSES = ((86, 180, 233), (230, 159, 0), (204, 121, 167))
"""Okabe and Ito's colours, which all eyes tell apart: of answers, and of the passes."""

LEFT, END, MIDDLE = 16, WIDTH - 16, 260
IMAGE_SIDE = 224
N_BELIEFS = 5
SHARP_FROM = 3
"""From this enlargement on, pixels are drawn as squares."""


@dataclass(frozen=True, eq=False)
class PassView:
    """One pass.

    Attributes:
        keep_ratios: share of each group's channels that stayed active, float in [0, 1], (G,).
        share: MACs that it took over the dense network's.
    """

    keep_ratios: NDArray[np.floating[Any]]
    share: float


@dataclass(frozen=True, eq=False)
class EpisodeView:
    """What is drawn of an episode.

    Attributes:
        image: uint8 (C, H, W); grey with fewer than three channels, else the first three are red, green, blue.
        classes: class names.
        label: the true class; None if nobody knows it.
        probabilities: of the prediction at hand, float (classes,); None before the first pass.
        passes: those made so far.
        max_passes: how many there may be at most.
        spent: MACs so far over the dense network's, decisions included.
        reward: of the last step; None before it.
        total: sum of the episode's rewards; None before the first.
        over: whether the episode has ended.
        title: what stands above the image.
        before: the episode before this one, which is drawn small.

    Raises:
        RLPruneError: the image is not uint8 (C, H, W), there is no such label, or not one probability for each class.
    """

    image: NDArray[np.uint8]
    classes: Sequence[str]
    label: int | None = None
    probabilities: NDArray[np.floating[Any]] | None = None
    passes: Sequence[PassView] = ()
    max_passes: int = 1
    spent: float = 0.0
    reward: float | None = None
    total: float | None = None
    over: bool = False
    title: str = ""
    before: EpisodeView | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.image.shape, self.image.dtype
        if dtype != np.uint8 or len(shape) != 3 or not all(shape):
            raise RLPruneError(f"the image is {dtype} of shape {shape}; draw uint8 of shape (C, H, W)")
        if self.probabilities is not None and self.probabilities.shape != (len(self.classes),):
            raise RLPruneError(
                f"probabilities are of shape {self.probabilities.shape}; one for each of {len(self.classes)} classes "
                "is needed"
            )
        if self.label is not None and not 0 <= self.label < len(self.classes):
            raise RLPruneError(f"label is {self.label}; a class from 0 to {len(self.classes) - 1} is needed, or None")

    @property
    def prediction(self) -> int | None:
        """The class believed in most; None before the first pass."""
        return None if self.probabilities is None else int(np.argmax(self.probabilities))

    @property
    def colour(self) -> Colour:
        """Of the prediction: right, wrong, or nobody knows."""
        if self.label is None or self.prediction is None:
            return INK
        return RIGHT if self.prediction == self.label else WRONG

    @property
    def state(self) -> str:
        """How far the episode is, in words."""
        n = len(self.passes)
        if not n:
            return "no pass yet"
        answer = {RIGHT: ": right", WRONG: ": wrong"}.get(self.colour, "")
        return f"accepted after pass {n}{answer}" if self.over and n < self.max_passes else f"pass {n}{answer}"

    def name(self, index: int) -> str:
        """What the font can write of a class's name; its number if that is not enough."""
        plain = unicodedata.normalize("NFKD", " ".join(str(self.classes[index]).split()))
        kept = "".join(letter for letter in plain if not unicodedata.combining(letter))
        return kept if kept.isascii() and kept.isprintable() and kept else f"class {index}"


def draw(view: EpisodeView) -> NDArray[np.uint8]:
    """Draw an episode.

    Args:
        view: what of it.

    Returns:
        uint8 (480, 640, 3).
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = Pen(picture)
    pen.write(LEFT, 12, view.title, width=IMAGE_SIDE)
    pen.write(END, 12, view.state, size=15, colour=view.colour, right=True, width=END - MIDDLE)
    picture.paste(enlarged(view.image, IMAGE_SIDE), (LEFT, 40))
    _draw_label(pen, view)
    _draw_passes(pen, view)
    _draw_beliefs(pen, view)
    _draw_compute(pen, view)
    pen.box(0, 396, WIDTH, HEIGHT, STRIP)
    if view.before is not None:
        picture.paste(enlarged(view.before.image, 56, STRIP), (LEFT, 416))
        _draw_before(pen, view.before)
    return np.array(picture)


def tile(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay pictures of one size side by side, in about as many rows as columns.

    Args:
        frames: at least one, uint8 (height, width, 3).

    Returns:
        uint8 (rows * height, columns * width, 3); black where no picture lies.
    """
    height, width, _ = frames[0].shape
    rows = math.ceil(math.sqrt(len(frames)))
    columns = math.ceil(len(frames) / rows)
    wall = np.zeros((rows * height, columns * width, 3), np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * height, index % columns * width
        wall[top : top + height, left : left + width] = frame
    return wall


def enlarged(image: NDArray[np.uint8], side: int, background: Colour = FAINT) -> Image.Image:
    """An image, scaled to fit into the middle of a square.

    Args:
        image: uint8 (C, H, W).
        side: of the square, in pixels.
        background: what shows beside the image.
    """
    pixels = image[:3].transpose(1, 2, 0) if len(image) >= 3 else image[0]
    picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    scale = min(side / picture.width, side / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    kind = Image.Resampling.NEAREST if scale >= SHARP_FROM else Image.Resampling.BILINEAR
    square = Image.new("RGB", (side, side), background)
    square.paste(picture.resize(size, kind), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


@lru_cache(4096)
def _letters(text: str, size: int, width: int) -> Image.Image:
    """A text as a mask, for most of them are written again and again; dots end what is wider than so many pixels."""
    font = _font(size)
    if font.getlength(text) > width:
        while text and font.getlength(text + "...") > width:
            text = text[:-1]
        text = text.rstrip(" ,;") + "..."
    mask = Image.new("L", (math.ceil(font.getlength(text)) + 1, 2 * size))
    ImageDraw.Draw(mask).text((0, 0), text, 255, font)
    return mask


class Pen:
    """What writes and fills.

    Args:
        picture: what it works on, of mode RGB.
    """

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture
        self._canvas = ImageDraw.Draw(picture)

    def write(
        self,
        x: int,
        y: int,
        text: str,
        *,
        size: int = 13,
        colour: Colour = INK,
        right: bool = False,
        width: int = WIDTH,
    ) -> None:
        """Write a text with its upper left corner, or its upper right one, at a place; it is cut to a width."""
        letters = _letters(text, size, width)
        self._picture.paste(colour, (x - letters.width if right else x, y), letters)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill what lies between four edges, right and bottom not included; nothing if there is nothing."""
        edges = round(left), round(top), round(right) - 1, round(bottom) - 1
        if edges[0] <= edges[2] and edges[1] <= edges[3]:
            self._canvas.rectangle(edges, colour)

    def ratios(
        self, ratios: NDArray[np.floating[Any]], left: int, top: int, width: int, height: int, colour: Colour
    ) -> None:
        """A bar for each group: as high as the share of its channels that is kept."""
        n = len(ratios)
        edges = [left + index * width // n for index in range(n + 1)]
        gap = 1 if width >= 3 * n else 0
        for index, ratio in enumerate(np.nan_to_num(ratios).clip(0, 1).tolist()):
            start, end = edges[index], max(edges[index] + 1, edges[index + 1] - gap)
            self.box(start, top, end, top + height, FAINT)
            self.box(start, top + round(height * (1 - ratio)), end, top + height, colour)


def _percent(share: float) -> str:
    """A share in percent, with one decimal place where it is small."""
    return f"{100 * share:.1f} %" if 0 < share < 0.0995 else f"{100 * share:.0f} %"


def _draw_label(pen: Pen, view: EpisodeView) -> None:
    """Below the image: the true class, and what the steps were worth."""
    if view.label is not None:
        pen.write(LEFT, 272, "label", colour=GREY)
        pen.write(LEFT + 42, 270, view.name(view.label), size=15, width=IMAGE_SIDE - 42)
    if view.reward is not None:
        pen.write(LEFT, 296, "reward", colour=GREY)
        pen.write(LEFT + 48, 294, f"{view.reward:+.3f}", size=15)
    if view.total is not None and view.total != view.reward:
        pen.write(LEFT + 118, 296, f"episode {view.total:+.3f}", colour=GREY, width=IMAGE_SIDE - 118)


def _draw_passes(pen: Pen, view: EpisodeView) -> None:
    """A row of bars for each pass that may be made; a line where it was not."""
    pen.write(MIDDLE, 38, "kept channels of each group", colour=GREY)
    n_rows = max(view.max_passes, len(view.passes), 1)
    height = 159 // n_rows
    for index in range(n_rows):
        top, bars = 58 + index * height, height - 24
        made = view.passes[index] if index < len(view.passes) else None
        pen.write(MIDDLE, top, f"pass {index + 1}", colour=INK if made else GREY)
        if made is None:
            pen.box(MIDDLE, top + 18 + bars - 1, END, top + 18 + bars, FAINT)
            continue
        pen.write(END, top, f"{_percent(made.share)} of the MACs", right=True)
        colour = PASSES[index % len(PASSES)]
        if len(made.keep_ratios):
            pen.ratios(made.keep_ratios, MIDDLE, top + 18, END - MIDDLE, bars, colour)


def _draw_beliefs(pen: Pen, view: EpisodeView) -> None:
    """The likeliest classes, and the true one below them where it is not among them."""
    pen.write(MIDDLE, 222, "belief", colour=GREY)
    if view.probabilities is None:
        pen.write(MIDDLE, 242, "none before the first pass", colour=GREY)
        return
    probabilities = np.nan_to_num(view.probabilities).clip(0, 1)
    order = np.argsort(-probabilities, kind="stable")[:N_BELIEFS].tolist()
    if view.label is not None and view.label not in order:
        order.append(view.label)
    for row, index in enumerate(order):
        top, likely = 240 + 17 * row, float(probabilities[index])
        true = index == view.label
        colour = RIGHT if true else view.colour if row == 0 else GREY
        pen.write(MIDDLE, top, view.name(index), colour=colour, width=150)
        pen.box(MIDDLE + 158, top + 2, END - 50, top + 14, FAINT)
        pen.box(MIDDLE + 158, top + 2, MIDDLE + 158 + likely * (END - 50 - MIDDLE - 158), top + 14, colour)
        pen.write(END, top, _percent(likely), colour=colour, right=True)


def _draw_compute(pen: Pen, view: EpisodeView) -> None:
    """What was spent, pass by pass, on a scale that a mark divides at the whole network's cost."""
    scale = max(1.0, float(view.max_passes), view.spent)
    place = (END - LEFT) / scale
    pen.write(LEFT, 348, f"compute so far: {_percent(view.spent)} of the whole network's MACs", width=END - LEFT)
    pen.box(LEFT, 370, END, 382, FAINT)
    start = float(LEFT)
    pen.box(LEFT, 370, LEFT + view.spent * place, 382, GREY)  # what passes do not cover: a decision to accept
    for index, made in enumerate(view.passes):
        pen.box(start, 370, start + made.share * place, 382, PASSES[index % len(PASSES)])
        start += made.share * place
    if scale > 1:
        pen.box(LEFT + place - 1, 367, LEFT + place + 1, 385, INK)
        pen.write(END, 348, "mark: all of it, once", colour=GREY, right=True)


def _draw_before(pen: Pen, view: EpisodeView) -> None:
    """The last episode, small: batched environments show the next image as soon as one has ended."""
    left = LEFT + 68
    pen.write(LEFT, 400, "last episode", size=11, colour=GREY)
    if view.prediction is not None:
        pen.write(left, 416, view.name(view.prediction), colour=view.colour, width=164)
    if view.label is not None:
        pen.write(left, 434, f"label {view.name(view.label)}", colour=GREY, width=164)
    total = "" if view.total is None else f", reward {view.total:+.3f}"
    pen.write(left, 454, f"{_percent(view.spent)} of the MACs{total}", size=11, colour=GREY, width=172)
    width = (END - MIDDLE - 8 * 2) // 3
    for index, made in enumerate(view.passes[:3]):
        if len(made.keep_ratios):
            place = MIDDLE + index * (width + 8)
            pen.ratios(made.keep_ratios, place, 416, width, 54, PASSES[index % len(PASSES)])
