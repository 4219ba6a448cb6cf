"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from torch import Tensor

from rlprune.elastic.cnn import ElasticCNN
from rlprune.evaluation.results import (
    BundleResult,
    DecisionFigures,
    DenseResult,
    EvaluationResult,
    GatedResult,
    StaticResult,
)
from rlprune.evaluation.timing_results import (
    AdaptBenchmark,
    BenchmarkResult,
    BenchmarkRow,
    CallersBenchmark,
    ComparisonResult,
    EnvBenchmark,
    EqualCostRow,
)
from rlprune.profiles.cost import Cost

CONTROL_NAMES = {
    "shuffled": "shuffled",
    "best_static": "best static",
    "static_trained": "static, trained for it",
    "cascade": "tuned cascade",
    "uniform": "uniform ratio",
    "random": "random profiles",
    "oracle": "oracle",
}
"""What people read for the controls of an evaluation, in this order."""


def groups(network: ElasticCNN) -> tuple[Table, Table]:
    """The groups of a network with what they are worth, and the layers that are left alone."""
    cost = Cost(network)
    groups = f"{network.n_groups - network.resolution} channel groups{' and the resolution' * network.resolution}"
    found = Table(title=f"{groups}; dense: {_size(cost.dense.params, cost.dense.macs)}")
    for column in ("group", "channels", "widths", "params", "MACs, M", "of all %", "skippable"):
        found.add_column(column, justify="left" if column == "group" else "right", overflow="fold")
    for index, group in enumerate(network.groups):
        own = cost.of_group(index)
        widths = [int(width) for width in network.widths[index, int(network.min_level[index]) :]]
        found.add_row(
            escape(group.name),
            str(group.n_channels) + (f" x {group.layer_channels}" if group.layer_channels > 1 else ""),
            "/".join(str(width) for width in sorted(set(widths))),
            str(int(own.params)),
            f"{int(own.macs) / 1e6:.2f}",
            f"{100 * float(own.macs / cost.dense.macs):.1f}",
            "yes" if group.skippable else "no",
        )
    found.caption = "params, MACs: of the weights that make or read the group's channels; neighbours share some"
    if network.resolution:
        found.caption += "; the resolution's channels are rows of features, and its MACs what the lowest one saves"
    alone = Table(title="left alone")
    for column in ("layer", "channels", "why"):
        alone.add_column(column, justify="right" if column == "channels" else "left", overflow="fold")
    for item in network.unprunable:
        alone.add_row(escape(item.name), str(item.n_channels), escape(item.reason))
    return found, alone


def savings(network: ElasticCNN) -> str:
    """What is left of a network's MACs at least, in one line, and why it is much where it is."""
    cost = Cost(network)
    least = float(cost.of(network.uniform(0)).macs / cost.dense.macs)
    line = f"From 100 % down to {100 * least:.1f} % of the MACs."
    if least <= 0.9:
        return line
    reasons = dict.fromkeys(item.reason for item in network.unprunable)
    return f"{line} Less than a tenth can be saved. What is left alone: {'; '.join(reasons)}."


def codebook(network: ElasticCNN, profiles: Tensor) -> Table:
    """The profiles of a codebook and their cost."""
    cost = Cost(network)
    table = Table(title="codebook")
    for column in ("profile", "keep ratio of each group", "params", "MACs"):
        table.add_column(column, justify="left" if "keep" in column else "right")
    for index, (profile, params, macs) in enumerate(zip(profiles, *cost.of(profiles), strict=True)):
        ratios = " ".join(f"{network.keep_ratios[int(level)]:g}" for level in profile)
        table.add_row(
            str(index), ratios, _percent(float(params / cost.dense.params)), _percent(float(macs / cost.dense.macs))
        )
    return table


def evaluation(results: EvaluationResult | BundleResult | DenseResult, bench: BenchmarkResult | None = None) -> Table:
    """Accuracy and cost of a network beside its controls, with times if a benchmark is given."""
    batches = list(bench.macs_ratio) if bench else []
    table = _measured(
        results, ("decision", "top-1, %", "MACs saved, %", "parameters saved, %", *(f"ms at {n}" for n in batches))
    )
    dense_accuracy = "" if results.dense_accuracy is None else _points(results.dense_accuracy)
    table.add_row(f"dense ({results.dense})", dense_accuracy, "0.0", "0.0", *_milliseconds(bench, "dense"))
    if isinstance(results, DenseResult):
        return table
    table.add_row(
        "learnt, per image",
        _points(results.accuracy),
        _points(results.macs_cut, 1),
        _points(results.params_cut, 1),
        *_milliseconds(bench, "dynamic"),
        style="bold",
    )
    controls = ""
    if isinstance(results, EvaluationResult):
        for name, title in CONTROL_NAMES.items():
            accuracy = getattr(results.controls, name)
            if accuracy is None:
                continue
            table.add_row(title, _points(accuracy), _points(getattr(results.controls_macs_cut, name), 1), "")
        controls = (
            "Controls cost the same, or as near to it as there is one; shuffled: decisions dealt to other images; "
            f"oracle: knows the labels. {_told(results.decisions)}"
        )
    table.caption = (
        f"Saved: mean, every pass and the policy counted. {controls}"
        f"Learnt: {_interval(results)}; {results.distinct_profiles} distinct profiles, {results.mean_passes:.2f} "
        "passes per image." + (" Times: medians, batch sizes above, best dense row." if bench else "")
    )
    return table


def _told(decisions: DecisionFigures | None) -> str:
    """What another pass is worth, in words."""
    if decisions is None:
        return ""
    shares = [f"{'-' if share is None else _percent(share)}" for share in (decisions.breaks, decisions.repairs)]
    areas = ["-" if area is None else f"{area:.3f}" for area in (decisions.policy_auroc, decisions.margin_auroc)]
    return (
        f"Another pass breaks {shares[0]} of what was right and repairs {shares[1]} of what was wrong; telling what it "
        f"repairs (AUROC): the policy {areas[0]}, the margin {areas[1]}. "
    )


def gates(results: GatedResult) -> Table:
    """What a gated network does, and what its gates keep of each layer."""
    table = _measured(results, ("decision", "top-1, %", "MACs saved, %"))
    table.add_row(f"dense ({results.dense})", _points(results.dense_accuracy), "0.0")
    table.add_row("gates", _points(results.accuracy), _points(results.macs_cut, 1), style="bold")
    for name, accuracy in results.controls.items():
        table.add_row(name, _points(accuracy), _points(results.controls_macs_cut[name], 1))
    table.add_section()
    for layer in results.layers:
        of_classes = layer.by_class
        least = min(of_classes, key=lambda name: of_classes[name])
        most = max(of_classes, key=lambda name: of_classes[name])
        spread = f"least {of_classes[least]:.1f} ({least}), most {of_classes[most]:.1f} ({most})"
        table.add_row(escape(f"{layer.name}: {spread}"), f"{layer.kept:.1f}", f"of {layer.channels}")
    saves = (
        "Branches that are skipped are not computed."
        if results.saves_time
        else "Hidden channels are computed all the same: this saves no time."
    )
    table.caption = (
        f"Gates: {_interval(results)}; {results.distinct} different decisions; below, how much they keep of each "
        "layer, and for which classes. Shuffled: the decisions, dealt to other images; average: the same for all "
        f"images. {saves}"
    )
    return table


def static(results: StaticResult) -> Table:
    """Accuracy and cost of a network that was pruned once and for all."""
    table = _measured(results, ("pruned", "top-1, %", "MACs saved, %", "parameters saved, %", "zeros, %"))
    if results.dense_accuracy is not None:
        table.add_row("not at all", _points(results.dense_accuracy), "0.0", "0.0", "")
    shares = (results.macs_cut, results.params_cut, results.zeros)
    table.add_row(results.how, _points(results.accuracy), *(_points(share, 1) for share in shares))
    table.caption = f"{_interval(results)}." + (
        "" if results.saves_time else " Zeros are stored and multiplied like any number: this saves no time here."
    )
    return table


def compared(results: ComparisonResult) -> tuple[Table, Table]:
    """All ways of deciding, and what the others reach at the cost of the learnt ones."""
    return _points_of(results), _at_equal_macs(results.at_equal_macs)


def _points_of(results: ComparisonResult) -> Table:
    batches = list(results.dense.ms)
    table = Table(title=_title(results, "images"))
    for column in ("method", "point", "top-1, %", "MACs, %", "deciding, %", *(f"ms at {batch}" for batch in batches)):
        table.add_column(column, justify="left" if column in ("method", "point") else "right")
    for method, label, row in (("dense", "", results.dense), *((row.method, row.label, row) for row in results.rows)):
        table.add_row(
            method,
            label,
            _points(row.accuracy),
            _points(row.macs_share, 1),
            _points(row.decision_share, 2),
            *(f"{row.ms[batch]:.2f}" for batch in batches),
        )
    table.caption = "MACs: mean, all passes and decisions counted. Channels that gates hide are computed all the same."
    return table


def _at_equal_macs(rows: Sequence[EqualCostRow]) -> Table:
    methods = list(rows[0].accuracies) if rows else []
    table = Table(title="top-1 accuracy in % at the MACs of each learnt policy")
    for column in ("learnt", "MACs, %", "top-1, %", *methods):
        table.add_column(column, justify="left" if column == "learnt" else "right")
    for row in rows:
        reached = [_reached(row, method) for method in methods]
        table.add_row(f"{row.method}, {row.label}", _points(row.macs_share, 1), _points(row.accuracy), *reached)
    table.caption = (
        "Neighbouring points mixed; nothing where a method is never so cheap. !: above the learnt one's 95 % interval."
    )
    return table


def _reached(row: EqualCostRow, method: str) -> str:
    accuracy = row.accuracies[method]
    return "" if accuracy is None else _points(accuracy) + "!" * (method in row.beaten)


def _milliseconds(bench: BenchmarkResult | None, name: str) -> list[str]:
    """The best median of the rows that begin so, for every batch size."""
    return [] if bench is None else [f"{bench.best_ms(name, batch):.2f}" for batch in bench.macs_ratio]


def predictions(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Predicted class and cost of each image."""
    table = Table()
    for column in ("image", "class", "probability", "passes", "mean keep ratio", "MACs, share of dense"):
        table.add_column(column, justify="left" if column in ("image", "class") else "right")
    for row in rows:
        table.add_row(
            escape(row["image"]),
            escape(row["class"]),
            f"{row['probability']:.3f}",
            str(row["passes"]),
            f"{row['keep_ratio']:.2f}",
            f"{row['macs_share']:.3f}",
        )
    return table


def benchmark(results: BenchmarkResult | AdaptBenchmark | EnvBenchmark) -> Table:
    """Rows of a benchmark."""
    made_with = results.conditions
    table = Table(title=f"{escape(made_with.hardware)}, {made_with.threads} threads, {made_with.dtype}; medians")
    measured = [row for row in results.rows if row.accuracy is not None]
    for column in (
        "name",
        "batch",
        "ms",
        "images/s",
        "speed-up",
        "over all",
        "MACs ratio",
        *["top-1, %"][: len(measured)],
    ):
        table.add_column(column, justify="left" if column == "name" else "right")
    for row in results.rows:
        compared = _compared_to_dense(results, row) if isinstance(results, BenchmarkResult) else ("", "", "")
        right = () if row.accuracy is None else (_points(row.accuracy),)
        table.add_row(escape(row.name), str(row.batch), f"{row.ms:.2f}", f"{row.images_per_s:.0f}", *compared, *right)
    if isinstance(results, BenchmarkResult):
        table.caption = (
            "speed-up: over the best dense row of the same backend; over all: over the best of any; int8 over int8"
        )
    return table


def callers(results: CallersBenchmark) -> Table:
    """What callers get who send single images at the same time."""
    made_with = results.conditions
    table = Table(
        title=f"{results.callers} callers of single images; {escape(made_with.hardware)}, {made_with.threads} threads, "
        f"{made_with.dtype}"
    )
    for column in ("name", "images/s", "p50", "p99", "waits p50", "p99", "bucket", "MACs, M"):
        table.add_column(column, justify="left" if column == "name" else "right")
    for row in results.rows:
        times = (row.p50_ms, row.p99_ms, row.wait_p50_ms, row.wait_p99_ms, row.mean_bucket)
        table.add_row(row.name, f"{row.images_per_s:.0f}", *(f"{ms:.1f}" for ms in times), f"{row.macs / 1e6:.2f}")
    table.caption = (
        f"{results.speedup:.2f} times the images/s of the dense network; MACs ratio {results.macs_ratio:.2f}. Each "
        f"behind a stream of buckets of up to {results.max_batch}, max_wait_ms {results.max_wait_ms:g}. p50, p99: "
        "milliseconds to the answer, and of them waiting."
    )
    return table


def _compared_to_dense(results: BenchmarkResult, row: BenchmarkRow) -> tuple[str, str, str]:
    """How many times as fast a row is as dense ones, and how many times as cheap."""
    own = results.speedup.get(row.name, {}).get(row.batch)
    of_any = (results.speedup_overall or {}).get(row.name, {}).get(row.batch)
    ratio = "" if own is None and of_any is None else f"{_macs_ratio(results, row):.2f}"
    return "" if own is None else f"{own:.2f}", "" if of_any is None else f"{of_any:.2f}", ratio


def _macs_ratio(results: BenchmarkResult, row: BenchmarkRow) -> float:
    """Dense MACs over a row's own, which are the policy's but for a cascade."""
    ratio = results.macs_ratio[row.batch]
    policy = [each.macs for each in results.rows if each.name.startswith("dynamic") and each.batch == row.batch]
    if row.name.startswith("dynamic") or not policy or policy[0] is None or not row.macs:
        return ratio
    return ratio * policy[0] / row.macs


def _measured(results: EvaluationResult | BundleResult | DenseResult | GatedResult, columns: Sequence[str]) -> Table:
    """A table of figures, its first column one of names."""
    table = Table(title=_title(results, "images" if isinstance(results, GatedResult | StaticResult) else "test images"))
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    return table


def _title(results: EvaluationResult | BundleResult | DenseResult | GatedResult | ComparisonResult, images: str) -> str:
    made_with = results.conditions
    return f"{results.n_images} {images}; {escape(made_with.hardware)}, {made_with.threads} threads"


def _interval(results: EvaluationResult | BundleResult | DenseResult | GatedResult) -> str:
    low, high = results.accuracy_interval
    return f"{_points(low, 1)} to {_points(high, 1)} % is the 95 % interval"


def _size(params: Tensor, macs: Tensor) -> str:
    return f"{int(params) / 1e6:.2f} M parameters, {int(macs) / 1e6:.2f} M MACs"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f}"
