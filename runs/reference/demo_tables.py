"""Tables of what the demo gives in Markdown, for the documentation. Percentages throughout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def evaluation_table(results: Mapping[str, Any]) -> str:
    """The figures of an evaluation in Markdown.

    Args:
        results: as `rlprune.evaluation.dynamic.evaluate` gives them.
    """
    cut = f"{100 * results['macs_cut']:.1f}"
    controls = results["controls"]
    cuts = {name: f"{100 * share:.1f}" for name, share in results["controls_macs_cut"].items()}
    low, high = (100 * bound for bound in results["accuracy_interval"])
    rows = [
        (f"dense ({results['dense']})", results["dense_accuracy"], "0"),
        (f"**learnt, per image** (95 % interval {low:.1f} to {high:.1f})", results["accuracy"], cut),
        ("the same decisions, shuffled across images", controls["shuffled"], cuts["shuffled"]),
        ("best static profile, or mixture of two, of a search", controls["best_static"], cuts["best_static"]),
        *(
            (title, controls[name], cuts[name])
            for name, title in (
                ("static_trained", "networks pruned for all images, each trained for its cost"),
                ("cascade", "tuned cascade"),
                ("oracle", "oracle, which knows the labels"),
            )
            if name in controls
        ),
        ("one keep ratio everywhere", controls["uniform"], cuts["uniform"]),
        ("random profiles", controls["random"], cuts["random"]),
    ]
    lines = ["| decision | accuracy % | MACs saved, % |", "|---|---|---|"]
    lines += [f"| {name} | {100 * accuracy:.2f} | {cut} |" for name, accuracy, cut in rows]
    told = f"{results['n_images']} test images, {results['mean_passes']:.2f} passes per image."
    return "\n".join([*lines, "", told])


def verdict_table(report: Mapping[str, Any]) -> str:
    """The networks that an optimisation compares in Markdown; the one to be deployed is bold.

    Args:
        report: what `rlprune optimize` wrote as `report.json`.
    """
    batch = report["goal"]["batch"]
    lines = [
        f"| network | accuracy % | points lost (95 %) | MACs saved, % | ms at batch {batch} | speed-up |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        mark = "**" if row["name"] == report["deploy_row"] else ""
        low, high = row["drop_interval"]
        cells = [
            f"{mark}{row['title']}{mark}",
            f"{100 * row['accuracy']:.2f}",
            f"{row['drop']:.2f} ({low:.2f} to {high:.2f})",
            f"{100 * (1 - row['macs_share']):.1f}",
            f"{row['ms']:.2f}",
            f"{row['speedup']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *report["sentences"]])
