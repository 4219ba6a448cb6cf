"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from torch import Tensor

from rlprune.elastic.cnn import ElasticCNN
from rlprune.profiles.cost import Cost


def groups(network: ElasticCNN) -> tuple[Table, Table]:
    """The groups of a network with what they are worth, and the layers that are left alone."""
    cost = Cost(network)
    found = Table(title=f"{network.n_groups} channel groups; dense: {_size(cost.dense.params, cost.dense.macs)}")
    for column in ("group", "channels", "widths", "params", "MACs, M", "of all %", "skippable"):
        found.add_column(column, justify="left" if column == "group" else "right", overflow="fold")
    for index, group in enumerate(network.groups):
        own = cost.of_group(index)
        widths = [int(width) for width in network.widths[index, int(network.min_level[index]) :]]
        found.add_row(
            escape(group.name),
            str(group.n_channels),
            "/".join(str(width) for width in sorted(set(widths))),
            str(int(own.params)),
            f"{int(own.macs) / 1e6:.2f}",
            f"{100 * float(own.macs / cost.dense.macs):.1f}",
            "yes" if group.skippable else "no",
        )
    found.caption = "params, MACs: of the weights that make or read the group's channels; neighbours share some"
    alone = Table(title="left alone")
    for column in ("layer", "channels", "why"):
        alone.add_column(column, justify="right" if column == "channels" else "left", overflow="fold")
    for item in network.unprunable:
        alone.add_row(escape(item.name), str(item.n_channels), escape(item.reason))
    return found, alone


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


def evaluation(results: Mapping[str, Any], bench: Mapping[str, Any] | None = None) -> Table:
    """Accuracy and cost of a network beside its controls, with times if a benchmark is given."""
    low, high = results["accuracy_interval"]
    batches = list(bench["macs_ratio"]) if bench else []
    table = Table(
        title=f"{results['n_images']} test images; {escape(results['hardware'])}, {results['threads']} threads"
    )
    for column in ("decision", "top-1 %", "MACs cut %", "params cut %", *(f"ms at {n}" for n in batches)):
        table.add_column(column, justify="left" if column == "decision" else "right")
    dense = f"dense ({results['dense']})"
    table.add_row(dense, _points(results["dense_accuracy"]), "0.0", "0.0", *_milliseconds(bench, "dense"))
    if not results["controls"]:
        return table
    cut, params_cut = _points(results["macs_cut"], 1), _points(results["params_cut"], 1)
    table.add_row(
        "learnt, per image",
        _points(results["accuracy"]),
        cut,
        params_cut,
        *_milliseconds(bench, "dynamic"),
        style="bold",
    )
    titles = {
        "shuffled": "shuffled",
        "best_static": "best static",
        "uniform": "uniform ratio",
        "random": "random profiles",
    }
    for key, title in titles.items():
        table.add_row(title, _points(results["controls"][key]), _points(results["controls_macs_cut"][key], 1), "")
    table.caption = (
        "Cut: mean, every pass and the policy counted. Controls cost the same, unless none is that cheap; shuffled: "
        "the learnt decisions, dealt to other images. "
        f"Learnt: {_points(low, 1)} to {_points(high, 1)} % is its 95 % interval; {results['distinct_profiles']} "
        f"distinct profiles, {results['mean_passes']:.2f} passes per image."
        + (" Times: medians, batch sizes above, best dense row." if bench else "")
    )
    return table


def gates(results: Mapping[str, Any]) -> Table:
    """What a gated network does, and what its gates keep of each layer."""
    low, high = results["accuracy_interval"]
    table = Table(title=f"{results['n_images']} images; {escape(results['hardware'])}, {results['threads']} threads")
    for column in ("decision", "top-1 %", "MACs cut %"):
        table.add_column(column, justify="left" if column == "decision" else "right")
    table.add_row(f"dense ({results['dense']})", _points(results["dense_accuracy"]), "0.0")
    table.add_row("gates", _points(results["accuracy"]), _points(results["macs_cut"], 1), style="bold")
    for name, accuracy in results["controls"].items():
        table.add_row(name, _points(accuracy), _points(results["controls_macs_cut"][name], 1))
    table.add_section()
    for layer in results["layers"]:
        of_classes = layer["by_class"]
        least, most = min(of_classes, key=of_classes.get), max(of_classes, key=of_classes.get)
        spread = f"least {of_classes[least]:.1f} ({least}), most {of_classes[most]:.1f} ({most})"
        table.add_row(escape(f"{layer['name']}: {spread}"), f"{layer['kept']:.1f}", f"of {layer['channels']}")
    saves = (
        "Branches that are skipped are not computed."
        if results["saves_time"]
        else "Hidden channels are computed all the same: this saves no time."
    )
    table.caption = (
        f"Gates: {_points(low, 1)} to {_points(high, 1)} % is the 95 % interval; {results['distinct']} different "
        f"decisions; below, how much they keep of each layer, and for which classes. Shuffled: the decisions, dealt to "
        f"other images; average: the same for all images. {saves}"
    )
    return table


def static(results: Mapping[str, Any]) -> Table:
    """Accuracy and cost of a network that was pruned once and for all."""
    low, high = results["accuracy_interval"]
    table = Table(title=f"{results['n_images']} images; {escape(results['hardware'])}, {results['threads']} threads")
    for column in ("pruned", "top-1 %", "MACs cut %", "params cut %", "zeros %"):
        table.add_column(column, justify="left" if column == "pruned" else "right")
    if results["dense_accuracy"] is not None:
        table.add_row("not at all", _points(results["dense_accuracy"]), "0.0", "0.0", "")
    shares = (_points(results[key], 1) for key in ("macs_cut", "params_cut", "zeros"))
    table.add_row(results["how"], _points(results["accuracy"]), *shares)
    table.caption = f"{_points(low, 1)} to {_points(high, 1)} % is the 95 % interval." + (
        "" if results["saves_time"] else " Zeros are stored and multiplied like any number: this saves no time here."
    )
    return table


def compared(results: Mapping[str, Any]) -> tuple[Table, Table]:
    """All ways of deciding, and what the others reach at the cost of the learnt ones."""
    dense, batches = results["dense"], list(results["dense"]["ms"])
    points = Table(title=f"{results['n_images']} images; {escape(results['hardware'])}, {results['threads']} threads")
    for column in ("method", "point", "top-1 %", "MACs %", "deciding %", *(f"ms at {batch}" for batch in batches)):
        points.add_column(column, justify="left" if column in ("method", "point") else "right")
    for row in (dense, *results["rows"]):
        points.add_row(
            *("dense" if row is dense else row["method"], "" if row is dense else row["label"]),
            *(_points(row["accuracy"]), _points(row["macs_share"], 1), _points(row["decision_share"], 2)),
            *(f"{row['ms'][batch]:.2f}" for batch in batches),
        )
    points.caption = "MACs: mean, all passes and decisions counted. Channels that gates hide are computed all the same."
    methods = list(results["at_equal_macs"][0]["accuracies"]) if results["at_equal_macs"] else []
    equal = Table(title="top-1 % at the multiply-adds of each learnt policy")
    for column in ("learnt", "MACs %", "top-1 %", *methods):
        equal.add_column(column, justify="left" if column == "learnt" else "right")
    for row in results["at_equal_macs"]:
        reached = (
            "" if row["accuracies"][name] is None else _points(row["accuracies"][name]) + "!" * (name in row["beaten"])
            for name in methods
        )
        equal.add_row(
            f"{row['method']}, {row['label']}", _points(row["macs_share"], 1), _points(row["accuracy"]), *reached
        )
    equal.caption = (
        "Neighbouring points mixed; nothing where a method is never so cheap. !: above the learnt one's 95 % interval."
    )
    return points, equal


def _milliseconds(bench: Mapping[str, Any] | None, name: str) -> list[str]:
    """The best median of the rows that begin so, for every batch size."""
    if bench is None:
        return []
    rows = [row for row in bench["rows"] if row["name"].startswith(name)]
    return [f"{min(row['ms'] for row in rows if str(row['batch']) == batch):.2f}" for batch in bench["macs_ratio"]]


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


def benchmark(results: Mapping[str, Any]) -> Table:
    """Rows of a benchmark, as `bench`, `bench_adapt` or `rlprune.agents.benchmark.bench_env` gives them."""
    table = Table(title=f"{escape(results['hardware'])}, {results['threads']} threads, {results['dtype']}; medians")
    for column in ("name", "batch", "ms", "images/s", "speed-up", "MACs ratio"):
        table.add_column(column, justify="left" if column == "name" else "right")
    for row in results["rows"]:
        batch = str(row["batch"])
        speedup = results.get("speedup", {}).get(row["name"], {}).get(batch)
        table.add_row(
            row["name"],
            batch,
            f"{row['ms']:.2f}",
            f"{row['images_per_s']:.0f}",
            "" if speedup is None else f"{speedup:.2f}",
            "" if speedup is None else f"{results['macs_ratio'][batch]:.2f}",
        )
    return table


def _size(params: Tensor, macs: Tensor) -> str:
    return f"{int(params) / 1e6:.2f} M parameters, {int(macs) / 1e6:.2f} M multiply-adds"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f}"
