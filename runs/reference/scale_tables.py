"""The tables and the picture of what a fleet serves."""

from __future__ import annotations

from pathlib import Path

from reference_results import ScaleResult

from rlprune.evaluation.figures import figure

LOOKS = {"dense": ("#000000", "s"), "dynamic": ("#0072B2", "o")}


def scale_plot(path: Path, found: ScaleResult) -> None:
    """Images a second that are answered in time, by replicas, dense and dynamic; a chart for each network; a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    networks = list(dict.fromkeys(row.network for row in found.serving))
    with figure(path, 5.5 * len(networks), 4.5) as drawn:
        for chart, network in zip(drawn.subplots(1, len(networks), squeeze=False)[0], networks, strict=True):
            for kind, (colour, marker) in LOOKS.items():
                rows = [row for row in found.serving if (row.network, row.kind) == (network, kind)]
                chart.plot(
                    [row.replicas for row in rows],
                    [row.rate for row in rows],
                    color=colour,
                    marker=marker,
                    label=f"{kind}: ${rows[-1].dollars_per_million:.3f} per million images",
                )
            chart.set(title=network, xlabel="replicas", xscale="log", yscale="log")
            chart.set_ylabel(f"images a second, 99 % within {found.late_ms:g} ms")
            ticks = [row.replicas for row in rows]
            chart.set_xticks(ticks, [str(tick) for tick in ticks])
            chart.set_xticks([], minor=True)
            chart.legend(loc="upper left")


def serving_table(found: ScaleResult) -> str:
    """What replicas answer in time, and what a million images cost, in Markdown."""
    lines = [
        "| network | replicas | dense, images/s | dynamic, images/s | times as many | "
        "core-hours per million, dense | dynamic | dollars per million, dense | dynamic |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    pairs = {(row.network, row.replicas): {} for row in found.serving}
    for row in found.serving:
        pairs[row.network, row.replicas][row.kind] = row
    for (network, replicas), of in pairs.items():
        dense, dynamic = of["dense"], of["dynamic"]
        hours = f"{dense.core_hours_per_million:.2f} | {dynamic.core_hours_per_million:.2f}"
        dollars = f"{dense.dollars_per_million:.3f} | {dynamic.dollars_per_million:.3f}"
        rates = f"{dense.rate:,.0f} | {dynamic.rate:,.0f} | {dynamic.rate / dense.rate:.2f}"
        lines.append(f"| {network} | {replicas} | {rates} | {hours} | {dollars} |")
    return "\n".join(lines)


def loads_table(found: ScaleResult) -> str:
    """What a fleet makes of a load that grows, in Markdown, in percent."""
    lines = [
        "| network | what answers to the load | refused | at a lower budget | accuracy | hours of replicas |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.network} | {row.way} | {100 * row.refused:.1f} | {100 * row.cheaper:.0f} | {100 * row.accuracy:.2f} | "
        f"{row.replica_hours:.2f} |"
        for row in found.loads
    ]
    return "\n".join(lines)


def storage_table(found: ScaleResult) -> str:
    """What data sets and what is kept of them need, in Markdown, in gigabytes."""
    lines = [
        "| data set | pictures | decoded, 224 px | teacher's logits, 4 views | logits of 8 profiles, for the policy | "
        "labels |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.data} | {row.pictures:,.0f} | {row.decoded:,.0f} | {row.teacher:,.0f} | {row.logits:,.0f} | "
        f"{row.labels:.2f} |"
        for row in found.storage
    ]
    return "\n".join(lines)
