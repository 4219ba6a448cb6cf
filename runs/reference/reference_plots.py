"""Pictures that only the pages on results need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reference_results import BudgetsResult, GrowthResult

from rlprune.evaluation.figures import ACCURACY_AXIS, MACS_AXIS, Line, Look, figure, name_lines
from rlprune.evaluation.timing_results import BenchmarkResult
from rlprune.metrics import wilson_interval

ONE_POLICY = Look("one policy, asked for each budget", "#0072B2", "o")
N_TEST = 10_000
"""Test images of CIFAR-10, on which accuracies are measured."""
ALONE = Look("policies for one penalty each", "#000000", "*", "")
BACKENDS = {
    "dynamic": ("PyTorch", "#0072B2", ""),
    "dynamic compiled": ("PyTorch, torch.compile", "#56B4E9", "//"),
    "dynamic onnxruntime": ("ONNX Runtime", "#E69F00", ".."),
    "dynamic int8 onnxruntime": ("the same in int8, over dense int8", "#009E73", "xx"),
}
"""What a dynamic row runs on, its colour and its hatching; other rows are not drawn."""
GROWTH = (
    ("batch", "batch size", "ms per image", "Time per image", {"dense": "dense", "dynamic": "dynamic"}),
    ("batch", "batch size", "MB", "Peak memory of the process", {"peak_mb": "peak"}),
    (
        "profiles",
        "profiles in the codebook",
        "seconds",
        "Time with more profiles",
        {"prepare_s": "prepare them all", "run_64_s": "run 64 images"},
    ),
    (
        "profiles",
        "profiles in the codebook",
        "parameters, over the dense network's",
        "Parameters held in prepared slices",
        {"held": "held"},
    ),
    (
        "groups",
        "channel groups (ResNet-20 to ResNet-110)",
        "seconds",
        "Time with deeper networks",
        {"find_s": "find groups", "slice_s": "slice once", "price_256_s": "price 256 profiles"},
    ),
)
"""What grows, its name and unit, the title of its chart, and the figures in it by their names for people."""
STEPS = {
    "find": "find groups",
    "slice": "slice one profile",
    "one epoch of one step": "adapt, one step",
    "save": "save a bundle",
    "load": "load the bundle",
    "predict 8": "predict 8 images",
}
"""What people read for the steps that a ResNet-50 goes through."""
COLOURS = ("#0072B2", "#D55E00", "#009E73")
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
MARKERS = ("o", "s", "^")


def one_policy_plot(path: Path, results: BudgetsResult, title: str = "One policy for all budgets") -> None:
    """The frontier that one policy for all budgets traces, beside policies for one penalty each; a PNG.

    Args:
        path: the file to write.
        results: what `compare_budgets.py` measured.
        title: of the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    one = sorted((point.macs_share, point.accuracy) for point in results.frontier)
    alone = sorted((row.alone.macs_share, row.alone.accuracy) for row in results.rows)
    ends = [wilson_interval(round(accuracy * N_TEST), N_TEST) for _, accuracy in alone]
    lines = [Line(ONE_POLICY, 100 * np.array(one)), Line(ALONE, 100 * np.array(alone), 100 * np.array(ends))]
    with figure(path, 8, 5) as drawn:
        chart = drawn.subplots()
        for line in lines:
            line.draw(chart)
        chart.set(title=title, xlabel=MACS_AXIS, ylabel=ACCURACY_AXIS)
        name_lines(chart, lines)


def speed_plot(path: Path, measured: Mapping[str, BenchmarkResult]) -> None:
    """How many times as fast the dynamic network is as the dense one, in bars, with the ratio of MACs; a PNG.

    Args:
        path: the file to write.
        measured: benchmarks by the name of the network.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    groups = [(name, bench, batch) for name, bench in measured.items() for batch in bench.macs_ratio]
    with figure(path, max(6.0, 2.0 + 0.95 * len(groups)), 5.5) as drawn:
        chart = drawn.subplots()
        for place, (_, bench, batch) in enumerate(groups):
            _draw_bars(chart, place, bench, batch)
        chart.axhline(1, color="#000000", linewidth=1)
        chart.set_xticks(range(len(groups)), [f"batch {batch}" for _, _, batch in groups])
        made_with = next(iter(measured.values())).conditions
        chart.set(
            title=f"Speed-up on {made_with.hardware} with {made_with.threads} threads, and the ratio of MACs",
            ylabel="times as fast as the best dense row",
        )
        chart.grid(visible=False, axis="x")
        _name_networks(chart, measured)
        _explain_bars(chart, measured)


def _draw_bars(chart: Any, place: int, bench: BenchmarkResult, batch: int) -> None:
    """The bars of one network and batch size, and the mark of its ratio of MACs."""
    drawn = [row for row in BACKENDS if bench.speedup.get(row, {}).get(batch)]
    speedups = {row: bench.speedup[row][batch] for row in drawn}
    width = 0.8 / max(1, len(speedups))
    for index, (row, speedup) in enumerate(speedups.items()):
        _, colour, hatch = BACKENDS[row]
        left = place - 0.4 + index * width
        assert speedup is not None
        chart.bar(left, speedup, 0.94 * width, align="edge", color=colour, hatch=hatch, edgecolor="white", linewidth=0)
        chart.text(left + width / 2, speedup, f"{speedup:.2f}", ha="center", va="bottom", fontsize=7, bbox=WHITE)
    chart.hlines(bench.macs_ratio[batch], place - 0.44, place + 0.44, color="#000000", linewidth=2.5)


def _name_networks(chart: Any, measured: Mapping[str, BenchmarkResult]) -> None:
    """The names of the networks below the batch sizes, a thin line between two of them."""
    start = 0
    for name, bench in measured.items():
        n_batches = len(bench.macs_ratio)
        centre = start + (n_batches - 1) / 2
        chart.annotate(
            name.replace(", ", "\n"),
            (centre, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -22),
            textcoords="offset points",
            ha="center",
            va="top",
            fontweight="bold",
        )
        start += n_batches
        chart.axvline(start - 0.5, color="#bbbbbb", linewidth=0.8)
    chart.set_xlim(-0.5, start - 0.5)


def _explain_bars(chart: Any, measured: Mapping[str, BenchmarkResult]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    used = dict.fromkeys(row for bench in measured.values() for row in bench.speedup)
    handles: list[Any] = [
        Patch(facecolor=BACKENDS[row][1], hatch=BACKENDS[row][2], edgecolor="white", label=BACKENDS[row][0])
        for row in BACKENDS
        if row in used
    ]
    handles.append(Line2D([], [], color="#000000", linewidth=2.5, label="MACs, dense over mean dynamic"))
    chart.legend(handles=handles, loc="upper left", ncols=len(handles), fontsize=9)
    chart.set_ylim(top=1.12 * chart.get_ylim()[1])


def growth_plot(path: Path, results: GrowthResult) -> None:
    """How time and memory grow, a page of charts; a PNG.

    Args:
        path: the file to write.
        results: what `growth.py` measured.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with figure(path, 15, 8.5) as drawn:
        *charts, last = drawn.subplots(2, 3).flatten()
        for chart, (name, axis, unit, title, figures) in zip(charts, GROWTH, strict=True):
            chart.set(title=title, xlabel=axis, ylabel=unit, xscale="log")
            _draw_growth(chart, getattr(results, name), name, figures)
        _draw_steps(last, results.resnet50)


def _draw_growth(chart: Any, rows: Sequence[Any], name: str, figures: Mapping[str, str]) -> None:
    sizes = [getattr(row, name) for row in rows]
    lines = [
        Line(
            Look(label, colour, marker),
            np.array([(getattr(row, name), getattr(row, key)) for row in rows], dtype=float),
        )
        for (key, label), colour, marker in zip(figures.items(), COLOURS, MARKERS, strict=False)
    ]
    for line in lines:
        line.draw(chart)
    chart.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    chart.set_xticks([], minor=True)
    chart.set_ylim(0, 1.15 * max(float(line.points[:, 1].max()) for line in lines))
    if len(lines) > 1:
        name_lines(chart, lines)


def _draw_steps(chart: Any, seconds: Mapping[str, float]) -> None:
    bars = chart.barh([STEPS.get(name, name) for name in seconds], list(seconds.values()), color=COLOURS[0])
    chart.bar_label(bars, [f"{value:.2f} s" for value in seconds.values()], padding=3, fontsize=9)
    chart.invert_yaxis()
    chart.grid(visible=False, axis="y")
    chart.set(title="torchvision's ResNet-50 at 224 pixels", xlabel="seconds")
    chart.set_xlim(right=1.2 * max(seconds.values()))
