"""Tables of what deciding per image is worth, in Markdown, for the documentation. Percentages throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from result_tables import percent

_TIMES = (1.1, 1.4, 1.6, 1.9, 2.1)
"""Costs at which designs stand beside each other: so many times what the cheapest of the first one's cascades costs."""


def decisions_table(results: Mapping[str, Any]) -> str:
    """What another pass is worth under each policy of a recipe, and how well that can be told, in Markdown.

    Args:
        results: what `rlprune.pipelines.steps` wrote as `results.json`.

    Returns:
        The table; nothing where the results are older than these figures.
    """
    lines = [
        "| MACs saved, % | breaks what was right, % | repairs what was wrong, % | AUROC, policy | AUROC, margin |",
        "|---|---|---|---|---|",
    ]
    for figures in sorted(results["budgets"], key=lambda each: float(each["macs_cut"])):
        if found := figures.get("decisions"):
            shares = (percent(found[name]) if name in found else "" for name in ("breaks", "repairs"))
            areas = (f"{found[name]:.3f}" if name in found else "" for name in ("policy_auroc", "margin_auroc"))
            lines.append(f"| {' | '.join([percent(figures['macs_cut'], 1), *shares, *areas])} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def hand_over_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What it is worth to tell a later pass of an earlier one, or to train it for what comes that far, in Markdown.

    Args:
        measured: by the name of the network `shares` of the dense MACs, and `variants` of {accuracies, first, second,
            repairs, breaks} by name.
    """
    lines = []
    for network, found in measured.items():
        if not lines:
            at = " | ".join(f"{100 * share:.0f} % of the MACs" for share in found["shares"])
            lines += [
                f"| network | variant | {at} | first pass alone | second | repairs | breaks |",
                "|---" * (6 + len(found["shares"])) + "|",
            ]
        for name, row in found["variants"].items():
            figures = [*row["accuracies"], row["first"], row["second"], row["repairs"], row["breaks"]]
            lines.append(f"| {network} | {name} | {' | '.join(map(percent, figures))} |")
    return "\n".join(lines)


def ahead_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Policies beside tuned cascades of the same cost, both made from images like those that measure, in Markdown.

    Args:
        measured: what compare_decisions.py wrote, by the name of the network.
    """
    lines = [
        "| network | penalty | MACs saved, % | policy | cascade | policy, shuffled | ahead by | begun at random |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network, found in measured.items():
        known = {(row["condition"], row["penalty"]): row for row in found["summary"]}
        for (condition, penalty), row in known.items():
            if condition == "clean":
                figures = [percent(row[name]) for name in ("accuracy", "cascade", "shuffled")]
                both = [_ahead(each) for each in (row, known["random", penalty])]
                cells = [network, f"{penalty:g}", percent(row["macs_cut"], 1), *figures, *both]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def conditions_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What policies are ahead of cascades with wrong labels and on spoiled images, in Markdown; arguments likewise."""
    penalties = list(dict.fromkeys(row["penalty"] for found in measured.values() for row in found["summary"]))
    lines = [
        f"| network | images | accuracy | {' | '.join(f'ahead at {penalty:g}' for penalty in penalties)} |",
        "|---|---|---|" + "---|" * len(penalties),
    ]
    for network, found in measured.items():
        known = {(row["condition"], row["penalty"]): row for row in found["summary"]}
        for condition in dict.fromkeys(condition for condition, _ in known):
            if condition not in ("clean", "random"):
                rows = [known[condition, penalty] for penalty in penalties]
                accuracies = [row["accuracy"] for row in rows]
                span = f"{percent(min(accuracies), 1)} to {percent(max(accuracies), 1)}"
                lines.append(f"| {network} | {condition} | {span} | {' | '.join(map(_ahead, rows))} |")
    return "\n".join(lines)


def _ahead(row: Mapping[str, float]) -> str:
    """Points that the policy is ahead, and half of the interval's width."""
    return f"{100 * row['ahead']:+.2f} ± {100 * row['within']:.2f}"


def observations_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Accuracy where a share of the images goes on, chosen by gates that see more and more, in Markdown.

    Args:
        measured: what compare_observations.py wrote, by the name of the network.
    """
    lines = []
    for network, found in measured.items():
        if not lines:
            at = [f"{100 * share:.0f} % go on" for share in found["going_on"]]
            lines = [f"| network | pass | seen | {' | '.join(at)} |", "|---|---|---|" + "---|" * len(at)]
        for passes, rows in found["decisions"].items():
            lines += [
                f"| {network} | {passes} | {seen} | {' | '.join(map(percent, figures))} |"
                for seen, figures in rows.items()
            ]
    return "\n".join(lines)


def designs_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Ways to train one network for several passes, by their cascades at equal cost and their policies, in Markdown.

    A table for each network. A cascade's accuracy is that of two neighbours mixed; empty where none is so cheap. Design
    `once` has a single pass. Networks pruned for all images, if there are any, come last, neighbours mixed likewise.

    Args:
        measured: what compare_designs.py wrote, by the name of the network.
    """
    return "\n\n".join(_designs_of(network, found) for network, found in measured.items())


def _designs_of(network: str, found: Mapping[str, Any]) -> str:
    """The table of a network."""
    cascades = {name: design["budgets"][0]["frontier"]["cascade"] for name, design in found["designs"].items()}
    cheapest = min(share for share, _ in next(iter(cascades.values())))
    shares = [round(cheapest * times, 2) for times in _TIMES]
    at = [f"at {100 * share:.0f} %" for share in shares]
    lines = [
        f"| {network} | parameters, k | {' | '.join(at)} | policies: accuracy at MACs | joint training |",
        "|---|---|" + "---|" * (len(at) + 2),
    ]
    for name, design in found["designs"].items():
        cells = [""] * len(at) if name == "once" else _at(cascades[name], shares)
        budgets = sorted(design["budgets"], key=lambda each: float(each["macs_cut"]))
        policies = [f"{percent(each['accuracy'])} at {percent(1 - each['macs_cut'], 1)}" for each in budgets]
        rewards = design["rewards"] or []
        gained = " to ".join(f"{reward:.4f}" for reward in rewards) if len(rewards) > 1 else ""
        size = f"{design['parameters'] / 1000:.0f}"
        lines.append(f"| {name} | {size} | {' | '.join(cells)} | {'; '.join(policies)} | {gained} |")
    if "static" in found:
        lines.append(f"| *static* |  | {' | '.join(_at(found['static'], shares, beyond=False))} |  |  |")
    return "\n".join(lines)


def _at(points: Sequence[Sequence[float]], at: Sequence[float], *, beyond: bool = True) -> list[str]:
    """Accuracies at shares of the dense MACs; empty below the cheapest; beyond the dearest, its own or empty."""
    shares, accuracies = zip(*sorted(map(tuple, points)), strict=True)
    best = np.maximum.accumulate(accuracies)
    known = [shares[0] <= share and (beyond or share <= shares[-1]) for share in at]
    return [
        percent(float(np.interp(share, shares, best))) if is_known else ""
        for share, is_known in zip(at, known, strict=True)
    ]
