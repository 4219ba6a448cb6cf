"""Tables of the committed results in Markdown, for the README and the documentation. Percentages throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlprune.errors import RLPruneError

_CLOSE = 10.0
"""Points of MACs saved within which a published result is a rival."""


_CONTROLS = ("shuffled", "cascade", "static_trained", "best_static", "uniform", "oracle")
"""Controls in the order of the table; older results have fewer."""
_PER_IMAGE = ("cascade", "oracle")
_HEADLINE = ("shuffled", "cascade", "static_trained", "best_static")
"""Controls of the table for the README, likewise."""


def reference_table(measured: Mapping[str, Mapping[str, Any]], published: Sequence[Mapping[str, Any]]) -> str:
    """Results of recipes beside published ones and their own controls, in Markdown.

    Args:
        measured: what `rlprune.pipelines.steps` wrote as `results.json`, by the name of the network.
        published: rows of {method, network, dense, pruned, macs_cut, per_image}, in percent.
    """
    lines = [
        "| network | method | per image | dense % | pruned % | MACs saved, % | parameters saved, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, results in measured.items():
        rows: list[tuple[str, ...]] = []
        for figures in sorted(results["budgets"], key=lambda each: float(each["macs_cut"])):
            dense = percent(figures["dense_accuracy"])
            cut = figures["macs_cut"]
            controls = figures["controls"]
            own = (percent(figures["accuracy"]), percent(cut, 1), percent(figures["params_cut"], 1))
            rows.append(("**rlprune**", "yes", dense, f"**{own[0]}**", *own[1:]))
            for name in (name for name in _CONTROLS if name in controls):
                control = (percent(controls[name]), percent(figures["controls_macs_cut"][name], 1))
                per_image = "yes" if name in _PER_IMAGE else "no"
                rows.append((f"its control: {name.replace('_', ' ')}", per_image, dense, *control, ""))
        for row in (row for row in published if row["network"] == network):
            dense = "" if row["dense"] is None else f"{row['dense']:.2f}"
            per_image = "yes" if row["per_image"] else "no"
            theirs = (f"{row['pruned']:.2f}", f"{row['macs_cut']:g}")
            rows.append((f"{row['method']}, as published", per_image, dense, *theirs, ""))
        lines += [f"| {network} | {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def percent(share: float, digits: int = 2) -> str:
    """A share in percent, with so many digits after the point."""
    return f"{100 * share:.{digits}f}"


def speed_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Benchmarks in Markdown: for every batch size the best dense row of each backend, and the best dynamic one.

    Args:
        measured: what `rlprune.evaluation.benchmark.bench` gives, by the name of the network.
    """
    lines = [
        "| network | backend | batch | best dense, ms | static, ms | dynamic, ms | speed-up | MACs saved, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network, bench in measured.items():
        for backend in dict.fromkeys(map(_runs_in, bench["rows"])):
            for batch, ratio in bench["macs_ratio"].items():
                ms = {
                    row["name"]: row["ms"]
                    for row in bench["rows"]
                    if _runs_in(row) == backend and row["batch"] == int(batch)
                }
                dense, dynamic = (
                    min(value for name, value in ms.items() if name.startswith(kind)) for kind in ("dense", "dynamic")
                )
                static = f"{ms['static']:.2f}" if "static" in ms else ""
                lines.append(
                    f"| {network} | {backend} | {batch} | {dense:.2f} | {static} | {dynamic:.2f} "
                    f"| {dense / dynamic:.2f} | {percent(1 - 1 / ratio, 1)} |"
                )
    return "\n".join(lines)


def _runs_in(row: Mapping[str, Any]) -> str:
    """The backend of a benchmark's row, and its number format if that is another than float32."""
    return f"{row['backend']}, int8" if " int8" in row["name"] else str(row["backend"])


def signals_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What policies are worth that see or choose different things, at equal cost, in Markdown.

    Args:
        measured: by the name of the network `at_macs_share`, and `rows` of {name, accuracy}; the accuracy is None where
            a policy's costs do not span that share.
    """
    lines = ["| network | MACs saved, % | policy | accuracy % |", "|---|---|---|---|"]
    for network, found in measured.items():
        cut = percent(1 - found["at_macs_share"], 1)
        for row in found["rows"]:
            accuracy = "no policy costs that" if row["accuracy"] is None else percent(row["accuracy"])
            lines.append(f"| {network} | {cut} | {row['name']} | {accuracy} |")
    return "\n".join(lines)


def budgets_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """One policy for a range of penalties beside policies for one each, and what a controller held, in Markdown.

    Args:
        measured: by the name of the network `rows` of {penalty, alone, one_at_that_budget}, both with `accuracy` and
            `macs_share`, and `streams` of {target, held, without, without_when_hard}, shares of the dense MACs.
    """
    alone = [
        "| network | penalty | trained for it alone, accuracy % | MACs saved, % | one policy for all, accuracy % "
        "| MACs saved, % |",
        "|---|---|---|---|---|---|",
    ]
    held = [
        "| network | MACs saved, %: target | with a controller | without one, first half | without one, second half |",
        "|---|---|---|---|---|",
    ]
    for network, found in measured.items():
        for row in found["rows"]:
            cells = [f"{row['penalty']:g}"]
            for figures in (row["alone"], row["one_at_that_budget"]):
                cells += [percent(figures["accuracy"]), percent(1 - figures["macs_share"], 1)]
            alone.append(f"| {network} | {' | '.join(cells)} |")
        for row in found["streams"]:
            target, spent, first, second = (
                percent(1 - row[key], 1) for key in ("target", "held", "without", "without_when_hard")
            )
            held.append(f"| {network} | {target} | {spent} | {first} | {second} |")
    return "\n".join([*alone, "", *held])


def precision_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Accuracy, size and time in several number formats, of a bundle and of each of its profiles, in Markdown.

    Args:
        measured: by the name of the network `whole`, rows of {name, accuracy, ms by batch, and maybe bytes}, and
            `profiles`, rows of {profile, and {accuracy, and maybe bytes} for `float32`, `bfloat16`, `int8`, and for
            int8 of networks trained on for a while, without its rounding (`trained_on`) and with (`trained_for_it`)}.
    """
    whole = [
        "| network | all of it in | accuracy % | kB | ms at batch 1 | ms at batch 64 |",
        "|---|---|---|---|---|---|",
    ]
    profiles = [
        "| network | profile | float32, % | bfloat16, % | int8, % | trained on, int8, % | trained for it, int8, % "
        "| float32, kB | int8, kB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for network, found in measured.items():
        for row in found["whole"]:
            size = f"{row['bytes'] / 1e3:.0f}" if "bytes" in row else ""
            times = (f"{row['ms'][batch]:.2f}" for batch in ("1", "64"))
            whole.append(f"| {network} | {' | '.join([row['name'], percent(row['accuracy']), size, *times])} |")
        for row in found["profiles"]:
            formats = ("float32", "bfloat16", "int8", "trained_on", "trained_for_it")
            accuracies = (percent(row[name]["accuracy"]) for name in formats)
            sizes = (f"{row[name]['bytes'] / 1e3:.0f}" for name in ("float32", "int8"))
            profiles.append(f"| {network} | {' | '.join([str(row['profile']), *accuracies, *sizes])} |")
    return "\n".join([*whole, "", *profiles])


def gates_table(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Networks with gates, and what their decisions are worth, in Markdown.

    Args:
        measured: by the name of the network, what `rlprune.evaluation.gated.evaluate_gated` gives of each gated one.
    """
    lines = [
        "| network | gates of | of those stay, % | MACs saved, % | dense % | gated % | shuffled % | average % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network, rows in measured.items():
        for row in rows:
            shares = (percent(row[name], 1) for name in ("density", "macs_cut"))
            controls = (row["controls"][name] for name in ("shuffled", "average"))
            accuracies = map(percent, (row["dense_accuracy"], row["accuracy"], *controls))
            lines.append(f"| {' | '.join([network, row['kind'], *shares, *accuracies])} |")
    return "\n".join(lines)


def rankings_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What a slice is worth under each ranking of channels, before and after training on, in Markdown.

    Args:
        measured: by the name of the network `dense_accuracy`, and `rows` of {criterion, macs_cut, before, after}.
    """
    lines = [
        "| network | ranked by | MACs saved, % | dense % | slice, untrained % | slice, fine-tuned % |",
        "|---|---|---|---|---|---|",
    ]
    for network, found in measured.items():
        for row in found["rows"]:
            accuracies = map(percent, (found["dense_accuracy"], row["before"], row["after"]))
            lines.append(f"| {' | '.join([network, row['criterion'], percent(row['macs_cut'], 1), *accuracies])} |")
    return "\n".join(lines)


def prices_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What policies save that pay in MACs, and in time, in Markdown.

    Args:
        measured: by the name of the network `rows` of {paid, penalty, accuracy, macs and time (shares of the dense
            network's), blocks_dropped, width_of_the_others (shares)}.
    """
    lines = [
        "| network | paid in | penalty | accuracy % | MACs saved, % | time saved at batch 1, % | blocks dropped, % "
        "| channels kept of the others, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network, found in measured.items():
        for row in found["rows"]:
            paid = "MACs" if row["paid"] == "macs" else "time"
            shares = (1 - row["macs"], 1 - row["time"], row["blocks_dropped"], row["width_of_the_others"])
            cells = [network, paid, f"{row['penalty']:g}", percent(row["accuracy"]), *(percent(x, 1) for x in shares)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def compare_table(results: Mapping[str, Any]) -> str:
    """All ways of deciding beside each other, and at equal cost, in Markdown.

    Args:
        results: as `rlprune.pipelines.comparison.Comparison.run` gives them.
    """
    batches = list(results["dense"]["ms"])
    headings = " | ".join(f"ms at batch {batch}" for batch in batches)
    points = [
        f"| method | point | accuracy % | MACs saved, % | MACs of deciding, % | {headings} |",
        f"|{'---|' * (5 + len(batches))}",
    ]
    for row in (results["dense"], *results["rows"]):
        name = ("dense", "") if row is results["dense"] else (row["method"], row["label"])
        shares = (percent(row["accuracy"]), percent(1 - row["macs_share"], 1), percent(row["decision_share"]))
        times = (f"{row['ms'][batch]:.2f}" for batch in batches)
        points.append(f"| {' | '.join([*name, *shares, *times])} |")
    others = list(results["at_equal_macs"][0]["accuracies"]) if results["at_equal_macs"] else []
    equal = [
        f"| at the cost of | MACs saved, % | its accuracy % | {' | '.join(others)} |",
        f"|{'---|' * (3 + len(others))}",
    ]
    for row in results["at_equal_macs"]:
        reached = ("" if row["accuracies"][name] is None else percent(row["accuracies"][name]) for name in others)
        cost_of = f"{row['method']}, {row['label']}"
        equal.append(
            f"| {' | '.join([cost_of, percent(1 - row['macs_share'], 1), percent(row['accuracy']), *reached])} |"
        )
    return "\n".join([*points, "", *equal])


def headline_table(measured: Mapping[str, Mapping[str, Any]], published: Sequence[Mapping[str, Any]]) -> str:
    """One row for each network: its bundle beside the dense network, controls and the best published rival.

    The rival is the most accurate published result that saves about as many MACs, up to ten points more or fewer.

    Args:
        measured: as for `reference_table`; the first of a network's budgets is the bundle's.
        published: as for `reference_table`.
    """
    known = [results["budgets"][0]["controls"] for results in measured.values()]
    shown = [name for name in _HEADLINE if name in ("shuffled", "best_static") or any(name in each for each in known)]
    of_controls = "".join(f" {name.replace('_', ' ')} % |" for name in shown)
    lines = [
        f"| network | dense % | **rlprune %** | MACs saved, % |{of_controls} best published: % at MACs saved, % |",
        f"|---|---|---|---|{'---|' * len(shown)}---|",
    ]
    for network, results in measured.items():
        bundle = results["budgets"][0]
        saved = percent(bundle["macs_cut"], 1)
        controls = bundle["controls"]
        close = [
            row for row in published if row["network"] == network and abs(row["macs_cut"] - float(saved)) <= _CLOSE
        ]
        rival = max(close, key=lambda row: float(row["pruned"]))
        cells = [network, percent(bundle["dense_accuracy"]), f"**{percent(bundle['accuracy'])}**", saved]
        cells += [percent(controls[name]) if name in controls else "" for name in shown]
        lines.append(f"| {' | '.join(cells)} | {rival['method']}: {rival['pruned']:.2f} at {rival['macs_cut']:g} |")
    return "\n".join(lines)


def seeds_table(found: Mapping[str, Any]) -> str:
    """The same policy learnt with several seeds, in Markdown.

    Args:
        found: `rows` of {seed, accuracy, macs_cut, shuffled}, and `accuracy_mean` and `accuracy_std` of them.
    """
    lines = ["| seed | accuracy % | MACs saved, % | shuffled % |", "|---|---|---|---|"]
    for row in found["rows"]:
        cells = (percent(row["accuracy"]), percent(row["macs_cut"], 1), percent(row["shuffled"]))
        lines.append(f"| {row['seed']} | {' | '.join(cells)} |")
    mean = percent(found["accuracy_mean"])
    std = percent(found["accuracy_std"])
    return "\n".join([*lines, "", f"Mean accuracy {mean} %, standard deviation {std} points."])


def growth_tables(found: Mapping[str, Any]) -> str:
    """How time and memory grow with the batch, the profiles and the groups, in Markdown.

    Args:
        found: as `growth.py` writes it: rows of `batch`, `profiles` and `groups`, and `resnet50`.
    """
    lines = ["| batch | dense, ms per image | dynamic, ms per image | peak memory, MB |", "|---|---|---|---|"]
    lines += [
        f"| {row['batch']} | {row['dense']:.2f} | {row['dynamic']:.2f} | {row['peak_mb']:.0f} |"
        for row in found["batch"]
    ]
    lines += [
        "",
        "| profiles | prepared in, s | memory of slices, dense networks | 64 images, s |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['profiles']} | {row['prepare_s']:.2f} | {row['held']:.2f} | {row['run_64_s']:.3f} |"
        for row in found["profiles"]
    ]
    lines += ["", "| groups | found in, s | one slice, s |", "|---|---|---|"]
    lines += [f"| {row['groups']} | {row['find_s']:.2f} | {row['slice_s']:.3f} |" for row in found["groups"]]
    return "\n".join(lines)


def between_markers(text: str, name: str, content: str) -> str:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`.

    Raises:
        RLPruneError: they are not there.
    """
    start = f"<!-- {name} -->"
    end = f"<!-- /{name} -->"
    before, found, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise RLPruneError(f"the text has no {start} ... {end} to write between; add them where it is to stand")
    return f"{before}{start}\n{content}\n{end}{after}"
