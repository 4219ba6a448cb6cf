"""Pictures and tables for people: what is spent on which image, accuracy against cost, the README's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from rlprune.errors import require
from rlprune.files import atomic_write

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
        results: as `rlprune.evaluate.evaluate` gives them.
        strips: pictures by title.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6 + 1.3 * len(strips)), layout="constrained")
    FigureCanvasAgg(figure)
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
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


def budgets_plot(path: Path, budgets: Sequence[Mapping[str, Any]]) -> None:
    """Accuracy against multiply-adds of one network's policies at several budgets, beside their controls; a PNG.

    Args:
        path: the file to write.
        budgets: as `rlprune.evaluate.evaluate` gives them, one per policy, all of one network.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    budgets = sorted(budgets, key=lambda results: -float(results["macs_cut"]))
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    chart = figure.subplots()
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
    lowest = min(min(results["controls"].values()) for results in budgets)
    chart.set_ylim(max(0.0, lowest - 0.02), min(1.0, float(max(high)) + 0.01))
    chart.grid(alpha=0.3)
    chart.legend(loc="lower right", fontsize=9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


def markdown_table(results: Mapping[str, Any], bench: Mapping[str, Any]) -> str:
    """The figures of an evaluation and a benchmark in Markdown.

    Args:
        results: as `rlprune.evaluate.evaluate` gives them.
        bench: as `rlprune.benchmark.bench` gives them.
    """
    cut, controls = f"{100 * results['macs_cut']:.1f}", results["controls"]
    cuts = {name: f"{100 * share:.1f}" for name, share in results["controls_macs_cut"].items()}
    low, high = (100 * bound for bound in results["accuracy_interval"])
    rows = [
        (f"dense ({results['dense']})", results["dense_accuracy"], "0"),
        (f"**learnt, per image** (95 % interval {low:.1f} to {high:.1f})", results["accuracy"], cut),
        ("the same decisions, shuffled across images", controls["shuffled"], cuts["shuffled"]),
        ("best static profile, or mixture of two, of a search", controls["best_static"], cuts["best_static"]),
        ("one keep ratio everywhere", controls["uniform"], cuts["uniform"]),
        ("random profiles", controls["random"], cuts["random"]),
    ]
    lines = ["| decision | accuracy % | multiply-adds cut % |", "|---|---|---|"]
    lines += [f"| {name} | {100 * accuracy:.2f} | {cut} |" for name, accuracy, cut in rows]
    lines += [
        "",
        "| batch | best dense, ms | dynamic, ms | speed-up | ratio of multiply-adds |",
        "|---|---|---|---|---|",
    ]
    for batch, speedup in bench["speedup"]["dynamic"].items():
        dense, dynamic = (
            min(row["ms"] for row in bench["rows"] if row["name"].startswith(name) and row["batch"] == int(batch))
            for name in ("dense", "dynamic")
        )
        ratio = bench["macs_ratio"][batch]
        lines.append(f"| {batch} | {dense:.2f} | {dynamic:.2f} | {speedup:.2f} | {ratio:.2f} |")
    conditions = (
        f"{results['n_images']} test images, seed {results['seed']}, {results['mean_passes']:.2f} passes per image; "
        f"{bench['hardware']}, {bench['threads']} threads, {bench['dtype']}, torch {bench['torch']}, {bench['date']}."
    )
    return "\n".join([*lines, "", conditions])


def reference_table(measured: Mapping[str, Mapping[str, Any]], published: Sequence[Mapping[str, Any]]) -> str:
    """Results of recipes beside published ones and their own controls, in Markdown.

    Args:
        measured: what `rlprune.steps` wrote as `results.json`, by the name of the network.
        published: rows of {method, network, dense, pruned, macs_cut, per_image}; accuracies and cuts in percent.
    """
    lines = [
        "| network | method | per image | dense % | pruned % | multiply-adds cut % | parameters cut % |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, results in measured.items():
        rows: list[tuple[str, ...]] = []
        for figures in sorted(results["budgets"], key=lambda each: float(each["macs_cut"])):
            dense, cut, controls = _percent(figures["dense_accuracy"]), figures["macs_cut"], figures["controls"]
            own = (_percent(figures["accuracy"]), _percent(cut, 1), _percent(figures["params_cut"], 1))
            rows.append(("**rlprune**", "yes", dense, f"**{own[0]}**", *own[1:]))
            for name in ("shuffled", "best_static", "uniform"):
                control = (_percent(controls[name]), _percent(figures["controls_macs_cut"][name], 1))
                rows.append((f"its control: {name.replace('_', ' ')}", "no", dense, *control, ""))
        for row in (row for row in published if row["network"] == network):
            dense, per_image = (
                "" if row["dense"] is None else f"{row['dense']:.2f}",
                "yes" if row["per_image"] else "no",
            )
            theirs = (f"{row['pruned']:.2f}", f"{row['macs_cut']:g}")
            rows.append((f"{row['method']}, as published", per_image, dense, *theirs, ""))
        lines += [f"| {network} | {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f}"


def between_markers(text: str, name: str, content: str) -> str:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{content}\n{end}{after}"
