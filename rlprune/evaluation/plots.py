"""Pictures for people: what is spent on which image, accuracy against cost, time against multiply-adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from rlprune.utils.files import atomic_write
from rlprune.utils.imports import require

_TILE, _BAR = 96, 12
_RIGHT, _WRONG = (46, 125, 50), (198, 40, 40)


def spending_strip(images: Tensor, shares: Tensor, correct: Tensor) -> NDArray[np.uint8]:
    """Images side by side, each above a bar of its share of the dense network's cost.

    Args:
        images: uint8 (N, C, H, W), C being 1 or 3.
        shares: (N,), 1 fills the bar.
        correct: bool (N,); the bar is green where the answer was right, red where it was wrong.

    Returns:
        uint8 (height, width, 3).
    """
    strip = Image.new("RGB", (len(images) * (_TILE + 4), _TILE + _BAR + 4), "white")
    draw = ImageDraw.Draw(strip)
    for i, (image, share, right) in enumerate(zip(images, shares.tolist(), correct.tolist(), strict=True)):
        pixels = image.permute(1, 2, 0).expand(-1, -1, 3).numpy()
        left = i * (_TILE + 4) + 2
        strip.paste(Image.fromarray(pixels).resize((_TILE, _TILE), Image.Resampling.NEAREST), (left, 2))
        top = _TILE + 4
        draw.rectangle((left, top, left + _TILE - 1, top + _BAR - 3), outline=(170, 170, 170))
        width = round(min(share, 1.0) * (_TILE - 1))
        draw.rectangle((left, top, left + width, top + _BAR - 3), fill=_RIGHT if right else _WRONG)
    return np.asarray(strip)


def frontier_plot(path: Path, results: Mapping[str, Any], strips: Mapping[str, NDArray[np.uint8]]) -> None:
    """Accuracy against multiply-adds for the policy and its controls, above strips of images; a PNG.

    Args:
        path: the file to write.
        results: as `rlprune.evaluation.dynamic.evaluate` gives them.
        strips: pictures by title.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with _figure(path, 9, 6 + 1.3 * len(strips)) as figure:
        _draw_frontier(figure, results, strips)


def _draw_frontier(figure: Any, results: Mapping[str, Any], strips: Mapping[str, NDArray[np.uint8]]) -> None:
    axes = figure.subplots(1 + len(strips), 1, height_ratios=[5, *(1.3 for _ in strips)], squeeze=False)[:, 0]
    chart = axes[0]
    for name, marker, colour in (
        ("uniform", "s", "tab:blue"),
        ("static", "^", "tab:green"),
        ("codebook", "D", "tab:gray"),
    ):
        points = results["frontier"][name]
        label = {"uniform": "uniform ratio", "static": "best static (search)", "codebook": "codebook profiles"}[name]
        line = "" if name == "codebook" else "-"
        chart.plot(*zip(*points, strict=True), marker=marker, linestyle=line, color=colour, label=label, alpha=0.8)
    cost = 1 - results["macs_cut"]
    interval = results["accuracy_interval"]
    chart.plot(cost, results["controls"]["shuffled"], "x", color="tab:red", ms=9, label="decisions shuffled")
    random_cost = 1 - results["controls_macs_cut"]["random"]
    chart.plot(random_cost, results["controls"]["random"], "v", color="tab:orange", ms=8, label="random profiles")
    errors = np.maximum(0, [[results["accuracy"] - interval[0]], [interval[1] - results["accuracy"]]])  # not -1e-16
    chart.errorbar(
        cost, results["accuracy"], errors, fmt="*", color="black", ms=16, capsize=3, label="learnt, per image"
    )
    chart.axhline(results["dense_accuracy"], color="black", linestyle=":", label="dense")
    chart.set(xlabel="mean multiply-adds, share of dense (policy and all passes included)", ylabel="test accuracy")
    low = min(results["accuracy"], *results["controls"].values())
    chart.set_ylim(max(0.0, low - 0.25 * (1 - low) - 0.01), min(1.0, results["dense_accuracy"] + 0.02))
    chart.grid(alpha=0.3)
    chart.legend(loc="lower right", fontsize=9)
    for axis, (title, strip) in zip(axes[1:], strips.items(), strict=True):
        axis.imshow(strip)
        axis.set_title(title, fontsize=10)
        axis.axis("off")


def budgets_plot(path: Path, budgets: Sequence[Mapping[str, Any]]) -> None:
    """Accuracy against multiply-adds of one network's policies at several budgets, beside their controls; a PNG.

    Args:
        path: the file to write.
        budgets: as `rlprune.evaluation.dynamic.evaluate` gives them, one per policy, all of one network.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with _figure(path, 8, 5.5) as figure:
        _draw_budgets(figure.subplots(), sorted(budgets, key=lambda results: -float(results["macs_cut"])))


def _draw_budgets(chart: Any, budgets: Sequence[Mapping[str, Any]]) -> None:
    frontier = budgets[0]["frontier"]
    for name, label, style in (
        ("uniform", "one keep ratio everywhere", "s-"),
        ("static", "best static (codebook and search)", "^-"),
        ("codebook", "codebook profiles", "D"),
    ):
        chart.plot(*zip(*frontier[name], strict=True), style, label=label, alpha=0.7)
    costs = [1 - results["macs_cut"] for results in budgets]
    chart.plot(costs, [results["controls"]["shuffled"] for results in budgets], "x--", label="decisions shuffled")
    accuracies = np.array([results["accuracy"] for results in budgets])
    low, high = np.array([results["accuracy_interval"] for results in budgets]).T
    errors = np.maximum(0, [accuracies - low, high - accuracies])  # where all are right, rounding gives -1e-16
    chart.errorbar(costs, accuracies, errors, fmt="*-", color="black", ms=13, capsize=3, label="learnt, per image")
    chart.axhline(budgets[0]["dense_accuracy"], color="black", linestyle=":", label="dense")
    chart.set(xlabel="mean multiply-adds, share of dense (policy and all passes included)", ylabel="test accuracy")
    top = min(1.0, float(max(high)) + 0.01)
    lowest = min(results["controls"][name] for results in budgets for name in ("shuffled", "best_static"))
    chart.set_ylim(max(0.0, lowest - 0.6 * (top - lowest) - 0.01), top)  # hopeless rivals may leave the picture
    chart.grid(alpha=0.3)
    chart.legend(loc="lower right", fontsize=9)


def one_policy_plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The frontier that one policy for all budgets traces, beside policies for one penalty each; a PNG.

    Args:
        path: the file to write.
        rows: of {penalty, and `alone` and `one_at_that_budget`, both {accuracy, macs_share}}.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with _figure(path, 7, 4.5) as figure:
        chart = figure.subplots()
        for key, label, style in (
            ("one_at_that_budget", "one policy, asked for each budget", "o-"),
            ("alone", "policies for one penalty each", "*"),
        ):
            points = sorted((row[key]["macs_share"], row[key]["accuracy"]) for row in rows)
            chart.plot(*zip(*points, strict=True), style, label=label, ms=12 if style == "*" else 5)
        chart.set(xlabel="mean multiply-adds, share of dense", ylabel="test accuracy")
        chart.grid(alpha=0.3)
        chart.legend(loc="lower right", fontsize=9)


def compare_plot(path: Path, results: Mapping[str, Any]) -> None:
    """Accuracy against multiply-adds, one line for each way of deciding; a PNG.

    Args:
        path: the file to write.
        results: as `rlprune.pipelines.comparison.Comparison.run` gives them.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with _figure(path, 8, 5.5) as figure:
        _draw_compared(figure.subplots(), results["rows"], results["dense"]["accuracy"])


def _draw_compared(chart: Any, rows: Sequence[Mapping[str, Any]], dense: float) -> None:
    for method in dict.fromkeys(row["method"] for row in rows):
        points = sorted((row["macs_share"], row["accuracy"]) for row in rows if row["method"] == method)
        learnt = method.startswith("rl")
        saves = any(row["saves_time"] for row in rows if row["method"] == method)
        label = method if saves else f"{method} (hidden, not skipped)"
        style = {"marker": "*", "ms": 12, "lw": 2} if learnt else {"marker": "o", "ms": 5, "alpha": 0.7}
        chart.plot(*zip(*points, strict=True), linestyle="-" if saves else ":", label=label, **style)
    chart.axhline(dense, color="black", linestyle=":", label="dense")
    chart.set(xlabel="mean multiply-adds, share of dense (all decisions included)", ylabel="test accuracy")
    best = max(row["accuracy"] for row in rows)
    lowest = min((row["accuracy"] for row in rows if row["method"] in ("rl progressive", "threshold")), default=best)
    chart.set_ylim(max(0.0, lowest - 0.3 * (best - lowest) - 0.03), min(1.0, max(best, dense) + 0.01))
    chart.grid(alpha=0.3)
    chart.legend(loc="lower right", fontsize=9)


def speed_plot(path: Path, measured: Mapping[str, Mapping[str, Any]]) -> None:
    """Speed-up in time against speed-up in multiply-adds, the diagonal drawn: what is below it was lost; a PNG.

    Args:
        path: the file to write.
        measured: what `rlprune.evaluation.benchmark.bench` gives, by the name of the network.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with _figure(path, 7, 6) as figure:
        _draw_speed(figure.subplots(), measured)


def _draw_speed(chart: Any, measured: Mapping[str, Mapping[str, Any]]) -> None:
    colours = {"dynamic": "tab:blue", "dynamic compiled": "tab:green", "dynamic onnxruntime": "tab:red"}
    highest = 1.0
    for (network, bench), marker in zip(measured.items(), "os^Dv*PX", strict=False):
        for row, speedups in bench["speedup"].items():
            points = {batch: (bench["macs_ratio"][batch], speedup) for batch, speedup in speedups.items() if speedup}
            if not points:
                continue
            ratios, times = zip(*points.values(), strict=True)
            chart.plot(ratios, times, marker, color=colours[row], label=f"{network}, {row}", alpha=0.8)
            for batch, point in points.items():
                chart.annotate(batch, point, textcoords="offset points", xytext=(6, 2), fontsize=8)
            highest = max(highest, *ratios, *times)
    end = 1.1 * highest
    chart.plot([0, end], [0, end], ":", color="black")
    chart.axhline(1, color="gray", linewidth=0.8)
    chart.set(xlabel="dense multiply-adds over mean dynamic ones", xlim=(0, end), ylim=(0, end))
    chart.set_ylabel("best dense time over dynamic time (batch size beside)")
    chart.grid(alpha=0.3)
    chart.legend(loc="upper left", fontsize=9)


_GROWTH = (
    ("batch", ("dense", "dynamic"), "ms per image"),
    ("batch", ("peak_mb",), "MB of the process, at most so far"),
    ("profiles", ("prepare_s", "run_64_s"), "seconds"),
    ("profiles", ("held",), "parameters prepared, of the dense network's"),
    ("groups", ("find_s", "slice_s", "price_256_s"), "seconds"),
)
"""What grows, which of its figures share a chart, and their unit."""


def growth_plot(path: Path, results: Mapping[str, Any]) -> None:
    """How time and memory grow, a page of charts; a PNG.

    Args:
        path: the file to write.
        results: `batch`, lists of rows {batch, dense, dynamic, peak_mb}; `profiles`, {profiles, prepare_s, run_64_s,
            held}; `groups`, {groups, find_s, slice_s, price_256_s}; and `resnet50`, seconds by step.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with _figure(path, 15, 8) as figure:
        *charts, last = figure.subplots(2, 3).flatten()
        for chart, (name, keys, unit) in zip(charts, _GROWTH, strict=True):
            rows = results[name]
            for key in keys:
                chart.plot([row[name] for row in rows], [row[key] for row in rows], "o-", label=key)
            chart.set(xscale="log", xlabel=name, ylabel=unit, ylim=(0, None))
            chart.set_xticks([row[name] for row in rows], [str(row[name]) for row in rows], minor=False)
            chart.set_xticks([], minor=True)
            chart.grid(alpha=0.3, which="both")
            chart.legend(fontsize=9)
        last.barh(list(results["resnet50"]), list(results["resnet50"].values()))
        last.set(xlabel="seconds", title="resnet50, 224 pixels")


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """A figure of this size in inches, written as a PNG at the end."""
    require("matplotlib", "plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
