from __future__ import annotations

from typing import Any

from decision_tables import (
    ahead_table,
    conditions_table,
    decisions_table,
    designs_table,
    hand_over_table,
    observations_table,
)


def test_what_hand_over_is_worth_stands_at_every_cost() -> None:
    row = {"accuracies": [0.88, 0.895], "first": 0.855, "second": 0.91, "repairs": 0.5, "breaks": 0.026}
    lines = hand_over_table({"Net": {"shares": [0.36, 0.42], "variants": {"plain": row}}}).splitlines()
    assert lines[0] == (
        "| network | variant | 36 % of the MACs | 42 % of the MACs | first pass alone | second | repairs | breaks |"
    )
    assert lines[1:] == [
        "|---|---|---|---|---|---|---|---|",
        "| Net | plain | 88.00 | 89.50 | 85.50 | 91.00 | 50.00 | 2.60 |",
    ]


def test_what_another_pass_is_worth_stands_where_it_is_known() -> None:
    known = {"macs_cut": 0.5, "decisions": {"breaks": 0.02, "repairs": 0.3, "policy_auroc": 0.8125}}
    assert decisions_table({"budgets": [{"macs_cut": 0.6}]}) == ""
    assert decisions_table({"budgets": [known, {"macs_cut": 0.6}]}).splitlines()[2:] == [
        "| 50.0 | 2.00 | 30.00 | 0.812 |  |"
    ]


def row(condition: str, ahead: float, accuracy: float = 0.9) -> dict[str, Any]:
    figures = {"macs_cut": 0.55, "accuracy": accuracy, "cascade": accuracy - ahead, "shuffled": 0.85}
    return {"condition": condition, "penalty": 0.1, **figures, "ahead": ahead, "within": 0.0012}


def test_policies_stand_beside_cascades_of_the_same_cost() -> None:
    found = {"summary": [row("clean", 0.001), row("random", -0.002), row("blur 1", 0.0, 0.7)]}
    assert ahead_table({"Net": found}).splitlines()[2:] == [
        "| Net | 0.1 | 55.0 | 90.00 | 89.90 | 85.00 | +0.10 ± 0.12 | -0.20 ± 0.12 |"
    ]


def test_spoiled_images_stand_at_every_penalty() -> None:
    dearer = row("blur 1", -0.01, 0.75) | {"penalty": 0.2}
    found = {"summary": [row("clean", 0.001), row("blur 1", 0.001, 0.7), row("clean", 0.001), dearer]}
    assert conditions_table({"Net": found}).splitlines() == [
        "| network | images | accuracy | ahead at 0.1 | ahead at 0.2 |",
        "|---|---|---|---|---|",
        "| Net | blur 1 | 70.0 to 75.0 | +0.10 ± 0.12 | -1.00 ± 0.12 |",
    ]


def test_gates_stand_by_what_they_see() -> None:
    found = {"going_on": [0.1, 0.2], "decisions": {"the widest": {"margin": [0.9, 0.91], "belief": [0.899, 0.9]}}}
    assert observations_table({"Net": found}).splitlines() == [
        "| network | pass | seen | 10 % go on | 20 % go on |",
        "|---|---|---|---|---|",
        "| Net | the widest | margin | 90.00 | 91.00 |",
        "| Net | the widest | belief | 89.90 | 90.00 |",
    ]


def test_designs_stand_beside_each_other_at_equal_cost() -> None:
    points = [[0.4, 0.88], [0.5, 0.89], [0.7, 0.91]]
    budget = {"accuracy": 0.885, "macs_cut": 0.55, "frontier": {"cascade": points}}
    design = {"parameters": 281_000, "rewards": [-0.05, -0.045], "budgets": [budget]}
    once = design | {"rewards": [-0.05]}
    found = {"designs": {"specialists": design, "once": once}, "static": [[0.6, 0.9], [0.5, 0.85]]}
    lines = designs_table({"Net": found}).splitlines()
    assert lines[0].startswith("| Net | parameters, k | at 44 % | at 56 % | at 64 % | at 76 % | at 84 % |")
    assert lines[2:] == [
        "| specialists | 281 | 88.40 | 89.60 | 90.40 | 91.00 | 91.00 | 88.50 at 45.0 | -0.0500 to -0.0450 |",
        "| once | 281 |  |  |  |  |  | 88.50 at 45.0 |  |",
        "| *static* |  |  | 88.00 |  |  |  |  |  |",
    ]
