"""Plots of an optimisation as SVG that stands in a page and takes its colours from the page's style."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from torch import Tensor

from rlprune.evaluation.figures import STYLE, Line, Look, name_lines
from rlprune.optimization.result import OptimizeResult, Point, Row
from rlprune.utils.imports import require

_WIDTH, _HEIGHT = 4.8, 3.7
"""Inches."""
_INK, _MUTED, _GRID, _GOAL, _WRONG = "#a00001", "#a00002", "#a00003", "#a00004", "#a00005"
_KINDS = {"dense": "#a00011", "static": "#a00012", "cascade": "#a00013", "dynamic": "#a00014"}
_THEME = {
    _INK: "ink",
    _MUTED: "muted",
    _GRID: "line",
    _GOAL: "good",
    _WRONG: "static",
    "#ffffff": "card",
    **{colour: kind for kind, colour in _KINDS.items()},
}
"""Colours that matplotlib draws with, and the custom properties of the page that take their place."""
_MARKERS = {"dense": "s", "static": "v", "cascade": "o", "dynamic": "D"}
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rlprune",
    "axes.prop_cycle": f"cycler('color', ['{_MUTED}'])",
    "axes.edgecolor": _MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": _MUTED,
    "figure.facecolor": "none",
    "grid.color": _GRID,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "hatch.color": "#ffffff",
}
_MOST_BARS = 24
MOST_POINTS = 24
"""Of a curve that are drawn, the chosen one aside."""


def macs_plot(result: OptimizeResult) -> str:
    """Accuracy against multiply-adds on the validation images, by which the choice was made.

    The region that meets the goal is shaded, as far as the goal bounds accuracy and multiply-adds.

    Args:
        result: of an optimisation, with at least one point.

    Returns:
        An element `<svg>`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    by_name = {name: tuple(points) for name, points in groupby(sorted(result.points, key=_name_of), _name_of)}
    dense = _dense_validation_accuracy(result)

    def draw(chart: Any) -> None:
        lines = [_curve(name, points) for name, points in by_name.items()]
        for line in lines:
            line.draw(chart)
        for point in result.points:
            if point.chosen:
                where = 100 * point.macs_share, 100 * point.accuracy
                chart.plot(*where, "o", ms=14, mfc="none", mec=_colour(point.name), mew=1.5, zorder=4)
        chart.set(xlabel="mean MACs, % of your network's", ylabel="accuracy, % of validation images")
        goal = result.goal
        most = None if goal.max_macs is None else 100 * goal.max_macs
        _frame(chart, lines, None if dense is None else _lowest(100 * dense, result), most)
        name_lines(chart, lines)

    return _svg("macs", draw)


def time_plot(result: OptimizeResult) -> str:
    """Accuracy on the test images against the time of a batch, a mark for each row; bars: 95 % of the points lost.

    The region that meets the goal is shaded, as far as the goal bounds accuracy and time.

    Args:
        result: of an optimisation, with at least one row.

    Returns:
        An element `<svg>`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    dense = [row for row in result.rows if row.kind == "dense"]

    def draw(chart: Any) -> None:
        lines = [_mark(row, dense[0].accuracy if dense else None) for row in result.rows]
        for line in lines:
            line.draw(chart)
        for row in result.rows:
            if row.kind == "int8":  # hollow
                marker = _MARKERS[kind_of(row.name)]
                chart.plot(row.ms, 100 * row.accuracy, marker, mfc="#ffffff", mec=_colour(row.name), ms=6, zorder=4)
            if row.name == result.deploy_row:
                chart.plot(row.ms, 100 * row.accuracy, "o", ms=14, mfc="none", mec=_colour(row.name), mew=1.5, zorder=4)
        batch = "an image" if result.goal.batch == 1 else f"a batch of {result.goal.batch}"
        chart.set(xlabel=f"milliseconds for {batch}", ylabel="accuracy, % of test images")
        most = _most_ms(result, min(row.ms for row in dense)) if dense else result.goal.max_ms
        _frame(chart, lines, _lowest(100 * dense[0].accuracy, result) if dense else None, most)
        name_lines(chart, lines)

    return _svg("time", draw)


def cost_plot(shares: Tensor, correct: Tensor) -> str:
    """How many test images cost how much, right answers below wrong ones.

    Args:
        shares: MACs of each image over the dense network's, float (N,), N >= 1.
        correct: whether the answer is right, bool (N,).

    Returns:
        An element `<svg>`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    costs, right = 100 * shares.double().numpy(), correct.numpy()
    edges = np.linspace(0, max(100.0, float(costs.max()) * 1.001), _MOST_BARS + 1)

    def draw(chart: Any) -> None:
        colours = [_KINDS["dynamic"], _WRONG]  # a pair would be a colour and its opacity
        _, _, bars = chart.hist((costs[right], costs[~right]), edges, stacked=True, color=colours, rwidth=0.86)
        for bar in bars[1]:
            bar.set(hatch="////", linewidth=0)
        chart.axvline(costs.mean(), color=_INK, linewidth=1.2, linestyle="--")
        chart.margins(y=0.16)
        chart.set_xlim(0, edges[-1])
        on_left = costs.mean() > edges[-1] / 2
        chart.annotate(
            f"mean {costs.mean():.1f} %",
            (costs.mean(), 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if on_left else 5, 0),
            textcoords="offset points",
            ha="right" if on_left else "left",
            va="top",
        )
        chart.set(xlabel="MACs, % of your network's", ylabel="test images")
        chart.grid(visible=False, axis="x")
        chart.yaxis.get_major_locator().set_params(integer=True)

    return _svg("costs", draw)


def _name_of(point: Point) -> str:
    return point.name


def kind_of(name: str) -> str:
    """Whose colour and marker a row or curve has."""
    first = name.partition(" ")[0]
    return "dynamic" if first == "rlprune" else first if first in _KINDS else "dense"


def _colour(name: str) -> str:
    return _KINDS[kind_of(name)]


def _look(name: str, label: str, line: str) -> Look:
    """As all that is made of the same network looks; a dollar is no formula."""
    return Look(label.replace("$", r"\$"), _colour(name), _MARKERS[kind_of(name)], line)


def _curve(name: str, points: Sequence[Point]) -> Line:
    """A curve; of many points some, at equal steps, its ends and what was chosen among them."""
    ordered = sorted(points, key=lambda point: (point.macs_share, point.accuracy))
    shown = set(np.linspace(0, len(ordered) - 1, min(len(ordered), MOST_POINTS)).round().astype(int).tolist())
    kept = [point for index, point in enumerate(ordered) if index in shown or point.chosen]
    by_cost = [(100 * point.macs_share, 100 * point.accuracy) for point in kept]
    return Line(_look(name, "yours" if name == "dense" else name, "-"), np.array(by_cost))


def _mark(row: Row, dense: float | None) -> Line:
    """A row as a point; its bar is where the goal has to be for the points lost, which is what is to be told.

    Args:
        row: of the table.
        dense: accuracy of the network as it was; None draws no bar.
    """
    bar = None if dense is None else np.array([[100 * dense - lost for lost in reversed(row.drop_interval)]])
    return Line(_look(row.name, row.title, ""), np.array([[row.ms, 100 * row.accuracy]]), bar)


def _dense_validation_accuracy(result: OptimizeResult) -> float | None:
    """Of the network as it was; None if it is not known."""
    known = [point.accuracy for point in result.points if point.name == "dense"]
    return known[0] if known else result.check.accuracy


def _lowest(dense: float, result: OptimizeResult) -> float | None:
    """The least accuracy in percent that the goal allows; None where it bounds none."""
    drop = result.goal.max_drop
    return None if drop is None else dense - drop


def _most_ms(result: OptimizeResult, dense_ms: float) -> float | None:
    goal = result.goal
    if goal.max_ms is not None:
        return goal.max_ms
    return None if goal.min_speedup is None else dense_ms / goal.min_speedup


def _frame(chart: Any, lines: Sequence[Line], lowest: float | None, most: float | None) -> None:
    """Axes that show all points and some of the goal, which is shaded: at least so accurate, at most so dear."""
    x, y = np.concatenate([line.points for line in lines]).T
    for line in lines:
        if line.intervals is not None:
            y = np.append(y, line.intervals)
    right, top = 1.06 * max(x.max(), most or 0) or 1.0, y.max()
    bottom = y.min() if lowest is None else min(y.min(), lowest)
    margin = 0.06 * max(top - bottom, 0.5)
    chart.set(xlim=(0, right), ylim=(bottom - margin, min(100.5, top + 2 * margin)))
    if lowest is None and most is None:
        return
    from matplotlib.patches import Rectangle

    start = bottom - margin if lowest is None else lowest
    corner, size = (0, start), (right if most is None else most, 101 - start)
    chart.add_patch(Rectangle(corner, *size, facecolor=_GOAL, alpha=0.13, linewidth=0, zorder=0))
    chart.add_patch(Rectangle(corner, *size, fill=False, edgecolor=_GOAL, linewidth=1, linestyle=":", zorder=1))
    chart.text(0.01 * right, start + 0.3 * margin, "goal", color=_GOAL, fontsize=9, fontweight="bold", va="bottom")


def _svg(name: str, draw: Callable[[Any], None]) -> str:
    """A figure as an element that can stand in a page among others.

    Args:
        name: that its parts' names begin with, so that they are the only ones of the page.
        draw: draws into axes.
    """
    matplotlib = require("matplotlib", "plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC, STYLE):
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        for text in figure.axes[0].texts:
            text.set_path_effects([])  # the page's style has its own, which keeps text text
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return _themed(name, file.getvalue())


def _themed(name: str, svg: str) -> str:
    """An SVG with the page's colours and font, without a size of its own, hidden from screen readers."""
    svg = svg[svg.index("<svg") :]
    for colour, role in _THEME.items():
        svg = svg.replace(colour, f"var(--{role})")
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: (?:(bold|\d{3}) )?([\d.]+)px[^;\"]*", _font, svg)
    svg = re.sub(r"; font-family: [^;\"]*", "", svg)
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)  # a style would be the whole page's
    return re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)


def _font(match: re.Match[str]) -> str:
    weight, size = match.groups()
    return f"font-size: {size}px" + (f"; font-weight: {weight}" if weight else "")
