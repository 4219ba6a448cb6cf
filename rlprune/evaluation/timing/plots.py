"""Pictures of accuracy against time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlprune.errors import RLPruneError
from rlprune.evaluation.figures import figure
from rlprune.evaluation.timing_results import BenchmarkResult, BenchmarkRow

_COLOURS = {
    "dynamic": ("learnt, per image", "#000000"),
    "cascade": ("tuned cascade", "#E69F00"),
    "static": ("static", "#0072B2"),
    "dense": ("dense", "#D55E00"),
}
"""What each kind of network is called for people, and its colour, as in other pictures."""
_MARKERS = {("pytorch", False): "o", ("onnxruntime", False): "s", ("onnxruntime", True): "D"}
_FORMATS = {"o": "PyTorch", "s": "ONNX Runtime", "D": "ONNX Runtime, int8"}


def frontier_in_time(path: Path, results: BenchmarkResult, title: str = "Accuracy against time") -> None:
    """Accuracy against milliseconds per image, a panel for each batch size; a PNG.

    Of rows that are one network in one backend, the fastest is shown. Static networks of one backend are joined;
    the one that Torch-Pruning makes is left out, since it was not trained for its cost.

    Args:
        path: the file to write.
        results: of a benchmark with accuracies.
        title: of the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RLPruneError: the results have no accuracies.
    """
    shown = [row for row in results.rows if row.accuracy is not None and row.name != "static"]
    if not shown:
        raise RLPruneError("a picture of accuracy against time needs accuracies, and there are none: time on --data")
    batches = list(dict.fromkeys(row.batch for row in shown))
    with figure(path, 1.5 + 4.6 * len(batches), 5.2) as drawn:
        panels = drawn.subplots(1, len(batches), sharey=True, squeeze=False)[0]
        for panel, batch in zip(panels, batches, strict=True):
            _draw(panel, _fastest([row for row in shown if row.batch == batch]))
            panel.set(xlabel="ms per image", title=f"batch {batch}", xscale="log")
            _label_times(panel)
        panels[0].set_ylabel("top-1 accuracy, % (bars: 95 % interval)")
        made_with = results.conditions
        drawn.suptitle(f"{title}: {made_with.hardware}, {made_with.threads} threads", fontsize=11, x=0.02, ha="left")
        drawn.legend(handles=_legend(shown), loc="outside right center", fontsize=9)


def _fastest(rows: Sequence[BenchmarkRow]) -> list[BenchmarkRow]:
    """The fastest row of each network in each backend and number format; static ones are networks of their own."""
    found: dict[tuple[object, ...], BenchmarkRow] = {}
    for row in rows:
        kind = _kind(row)
        key = (row.name if kind == "static" else kind, row.backend, row.int8)
        if key not in found or row.ms < found[key].ms:
            found[key] = row
    return list(found.values())


def _kind(row: BenchmarkRow) -> str:
    return row.name.partition(" ")[0]


def _draw(panel: Any, rows: Sequence[BenchmarkRow]) -> None:
    groups: dict[tuple[str, str | None, bool], list[BenchmarkRow]] = {}
    for row in rows:
        groups.setdefault((_kind(row), row.backend, row.int8), []).append(row)
    for (_, backend, int8), group in groups.items():
        group.sort(key=lambda row: row.ms)
        _, colour = _COLOURS[_kind(group[0])]
        x = [row.ms / row.batch for row in group]
        y = [100 * (row.accuracy or 0) for row in group]
        marker = _MARKERS[str(backend), int8]
        panel.plot(x, y, marker=marker, color=colour, linestyle="-", linewidth=1, zorder=3)
        ends = [row.accuracy_interval or (row.accuracy or 0, row.accuracy or 0) for row in group]
        errors = [
            [max(0.0, at - 100 * low) for at, (low, _) in zip(y, ends, strict=True)],
            [max(0.0, 100 * high - at) for at, (_, high) in zip(y, ends, strict=True)],
        ]
        panel.errorbar(x, y, errors, fmt="none", ecolor=colour, elinewidth=1, alpha=0.5)


def _label_times(panel: Any) -> None:
    """Numbers on an axis of times that may span less than a power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.xaxis.set_minor_formatter(NullFormatter())


def _legend(rows: Sequence[BenchmarkRow]) -> list[Any]:
    """What colours and markers stand for."""
    from matplotlib.lines import Line2D

    kinds = [kind for kind in _COLOURS if any(_kind(row) == kind for row in rows)]
    markers = dict.fromkeys(_MARKERS[str(row.backend), row.int8] for row in rows)
    colours = [Line2D([], [], color=_COLOURS[kind][1], linewidth=4, label=_COLOURS[kind][0]) for kind in kinds]
    shapes = [Line2D([], [], color="#666666", marker=each, linestyle="", label=_FORMATS[each]) for each in markers]
    return [*colours, *shapes]
