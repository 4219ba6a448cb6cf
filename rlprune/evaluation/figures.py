"""How pictures look: one style, one colour and marker for each method, and names written beside their lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlprune.utils.files import atomic_write
from rlprune.utils.imports import require

STYLE = Path(__file__).with_name("style.mplstyle")
MACS_AXIS = "mean MACs, % of the dense network (policy and every pass included)"
ACCURACY_AXIS = "top-1 accuracy, % (bars: 95 % interval)"
_MARKER_WEIGHT = 20
"""How many pixels of a line a marker is worth, where names are not to cover or touch it."""
_DIRECTIONS = [(x, y) for x in (1, 0, -1) for y in (1, -1, 0) if (x, y) != (0, 0)]
_DISTANCES = (7, 14, 24, 38, 56)
"""Pixels between a point and its name that are tried."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn, the same in all pictures.

    Attributes:
        label: its name for people.
        colour: of Okabe and Ito's.
        marker: matplotlib's.
        line: matplotlib's style, empty for points alone.
    """

    label: str
    colour: str
    marker: str
    line: str = "-"


LOOKS = {
    "learnt": Look("learnt, per image", "#000000", "*"),
    "uniform": Look("one keep ratio everywhere", "#666666", "s"),
    "static": Look("best static profile", "#56B4E9", "v"),
    "codebook": Look("profiles of the codebook", "#009E73", "D", ""),
    "shuffled": Look("decisions shuffled", "#CC79A7", "X", "--"),
    "random": Look("random profiles", "#D55E00", "P", ""),
    "rl progressive": Look("RL, several passes", "#000000", "*"),
    "rl once": Look("RL, one pass", "#0072B2", "*"),
    "threshold": Look("confidence threshold", "#E69F00", "o"),
    "cascade": Look("tuned cascade", "#E69F00", "o"),
    "static_trained": Look("static, trained for its cost", "#0072B2", "^"),
    "gates": Look("channel gates, density", "#009E73", "D", ":"),
    "sparsity": Look("channel gates, L1", "#CC79A7", "P", ":"),
    "branches": Look("branch gates", "#D55E00", "^"),
}
_OTHER = ("#8A6D3B", "h")
"""Colour and marker of what somebody else has named."""


@dataclass(frozen=True, eq=False)
class Line:
    """What is drawn of one method, and named.

    Attributes:
        look: how.
        points: float64 (N, 2), x and y in the units of the axes, by x.
        intervals: float64 (N, 2), lower and upper end; None for none.
    """

    look: Look
    points: NDArray[np.float64]
    intervals: NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls, name: str, points: Sequence[tuple[float, float]], intervals: Sequence[tuple[float, float]] = ()
    ) -> Line:
        """Of shares in [0, 1], which are shown in percent."""
        by_cost = sorted(range(len(points)), key=lambda index: points[index])
        ends = 100 * np.array([intervals[index] for index in by_cost]) if intervals else None
        return cls(LOOKS.get(name) or Look(name, *_OTHER), 100 * np.array([points[index] for index in by_cost]), ends)

    def draw(self, chart: Any) -> None:
        """Draw it, without its name."""
        look = self.look
        size = 6.0
        if look.marker == "*":
            size = 12.0 if len(self.points) < 8 else 9.0
        x, y = self.points.T
        chart.plot(x, y, marker=look.marker, linestyle=look.line, color=look.colour, ms=size, zorder=3)
        if self.intervals is not None:
            # Where all answers are right, rounding leaves the end of the interval a hair below the accuracy.
            errors = np.maximum(0, [y - self.intervals[:, 0], self.intervals[:, 1] - y])
            chart.errorbar(x, y, errors, fmt="none", ecolor=look.colour, elinewidth=1, alpha=0.6)


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """A figure of this size in inches, written as a PNG at the end.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(fname=STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn
        with atomic_write(path) as temporary:
            drawn.savefig(temporary)


def dense_line(chart: Any, accuracy: float) -> Line:
    """The accuracy of the dense network, drawn as a level line; the line is to be named with the others."""
    height = 100 * accuracy
    chart.axhline(height, color="#000000", linestyle=":", linewidth=1)
    left, right = chart.get_xlim()
    across = np.linspace(float(left), float(right), 12)[1:-1]
    look = Look(f"dense network, {height:.2f} %", "#000000", "", ":")
    return Line(look, np.stack([across, np.full_like(across, height)], axis=1))


def clip_below(chart: Any, lowest: float, lines: Sequence[Line]) -> None:
    """Begin the axis at a percentage, end it above all points, and say below it which points are left out."""
    highest = max(float((line.points[:, 1:] if line.intervals is None else line.intervals).max()) for line in lines)
    chart.set_ylim(lowest, min(100.2, highest + 0.08 * (highest - lowest)))
    shown = np.concatenate([line.points[line.points[:, 1] >= lowest] for line in lines])
    margin = 0.04 * max(1.0, float(np.ptp(shown[:, 0])))
    chart.set_xlim(shown[:, 0].min() - margin, shown[:, 0].max() + margin)
    left_out = [
        f"{line.look.label}: "
        + ", ".join(f"{y:.1f} % at {x:.2g} %" for x, y in line.points[line.points[:, 1] < lowest])
        for line in lines
        if (line.points[:, 1] < lowest).any()
    ]
    if left_out:
        note = "\n".join(["Below the picture, accuracy at MACs:", *left_out])
        chart.set_xlabel(f"{chart.get_xlabel()}\n")
        chart.annotate(
            note, (0, 0), xycoords="axes fraction", xytext=(0, -42), textcoords="offset points", va="top", fontsize=8
        )


def name_lines(chart: Any, lines: Sequence[Line]) -> None:
    """Write the name of each line beside the one of its points where it covers least; of none that is not in sight."""
    from matplotlib.patheffects import withStroke

    bottom, top = chart.get_ylim()
    lines = [line for line in lines if ((line.points[:, 1] >= bottom) & (line.points[:, 1] <= top)).any()]
    chart.figure.draw_without_rendering()
    pixels = [_pixels_of(chart, line) for line in lines]
    frame = chart.get_window_extent()
    taken = [text.get_window_extent() for text in chart.texts]
    for line, own in zip(lines, pixels, strict=True):
        others = np.concatenate([own[:0], *(each for each in pixels if each is not own)])
        text = chart.text(0, 0, line.look.label, color=line.look.colour, fontsize=9, fontweight="bold", zorder=5)
        size = text.get_window_extent()
        text.remove()
        places = _places(chart, line, size.width, size.height)
        costs = [0.5 * distance + _cost(box, frame, taken, own, others) for distance, box in places]
        best = places[int(np.argmin(costs))][1]
        corner = chart.transData.inverted().transform((best.x0, best.y0 + 2))
        text.set_position(corner)
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
        text.set_in_layout(False)
        chart.add_artist(text)
        taken.append(best)


def _pixels_of(chart: Any, line: Line) -> NDArray[np.float64]:
    """Where a line and its intervals are drawn, densely sampled, in pixels (N, 2)."""
    corners = chart.transData.transform(line.points)
    steps = np.linspace(0, 1, 60)[:, None]
    parts = [np.repeat(corners, _MARKER_WEIGHT if line.look.marker else 1, axis=0)]
    if line.look.line:
        parts += [start + steps * (end - start) for start, end in pairwise(corners)]
    if line.intervals is not None:
        for (x, _), (low, high) in zip(line.points, line.intervals, strict=True):
            start, end = chart.transData.transform([(x, low), (x, high)])
            parts.append(start + steps * (end - start))
    return np.concatenate(parts)


def _places(chart: Any, line: Line, width: float, height: float) -> list[tuple[int, Any]]:
    """Boxes for a name around the points of its line, each with its distance; level lines have theirs close by."""
    from matplotlib.transforms import Bbox

    boxes = []
    for distance in _DISTANCES if line.look.marker else _DISTANCES[:1]:
        for x, y in chart.transData.transform(line.points):
            for right, up in _DIRECTIONS:
                left = x + right * distance + (right - 1) * width / 2
                bottom = y + up * distance + (up - 1) * height / 2
                boxes.append((distance, Bbox.from_bounds(left, bottom, width, height)))
    return boxes


def _cost(box: Any, frame: Any, taken: Sequence[Any], own: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """How much a name in a box would hide, and how easily it would be taken for another line's."""
    outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
    overlaps = sum(box.overlaps(other) for other in taken)
    hidden = 4 * (_n_inside(own, box, 2) + _n_inside(others, box, 2))
    return float(10_000.0 * outside + 1_000.0 * overlaps + hidden) + 0.7 * _n_inside(others, box, 15)


def _n_inside(pixels: NDArray[np.float64], box: Any, margin: float) -> float:
    """How many pixels lie in a box or close to it."""
    low = (box.x0 - margin, box.y0 - margin)
    high = (box.x1 + margin, box.y1 + margin)
    return float(((pixels > low) & (pixels < high)).all(1).sum())
