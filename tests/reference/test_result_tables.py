from __future__ import annotations

from typing import Any

import pytest
from result_tables import (
    between_markers,
    budgets_table,
    compare_table,
    gates_table,
    precision_table,
    prices_table,
    rankings_table,
    signals_table,
    speed_table,
)

from rlprune.errors import RLPruneError


def row(name: str, backend: str, batch: int, ms: float) -> dict[str, Any]:
    return {"name": name, "backend": backend, "batch": batch, "ms": ms}


def test_the_best_dense_row_stands_beside_the_best_dynamic_one() -> None:
    rows = [
        row("dense", "pytorch", 1, 4.0),
        row("dense compiled", "pytorch", 1, 3.0),
        row("static", "pytorch", 1, 2.0),
        row("dynamic", "pytorch", 1, 2.5),
        row("dynamic compiled", "pytorch", 1, 1.5),
        row("dense onnxruntime", "onnxruntime", 1, 5.0),
        row("dynamic onnxruntime", "onnxruntime", 1, 2.0),
    ]
    assert speed_table({"Net": {"rows": rows, "macs_ratio": {"1": 2.75}}}).splitlines()[2:] == [
        "| Net | pytorch | 1 | 3.00 | 2.00 | 1.50 | 2.00 | 2.75 |",
        "| Net | onnxruntime | 1 | 5.00 |  | 2.00 | 2.50 | 2.75 |",
    ]


def test_what_signals_are_worth_stands_at_one_cost() -> None:
    rows = [{"name": "pixels", "accuracy": 0.9012}, {"name": "beliefs", "accuracy": None}]
    assert signals_table({"Net": {"at_macs_share": 0.3219, "rows": rows}}).splitlines()[2:] == [
        "| Net | 67.8 | pixels | 90.12 |",
        "| Net | 67.8 | beliefs | not that cheap or dear |",
    ]


def test_one_policy_stands_beside_those_for_one_penalty_each() -> None:
    figures = {
        "alone": {"accuracy": 0.91, "macs_share": 0.4},
        "one_at_that_budget": {"accuracy": 0.909, "macs_share": 0.41},
    }
    streams = [{"target": 0.5, "held": 0.503, "without": 0.52, "without_when_hard": 0.63}]
    lines = budgets_table({"Net": {"rows": [{"penalty": 0.05, **figures}], "streams": streams}}).splitlines()
    assert lines[2] == "| Net | 0.05 | 91.00 | 60.0 | 90.90 | 59.0 |"
    assert lines[-1] == "| Net | 50.0 | 50.3 | 52.0, 63.0 |"


def test_number_formats_stand_beside_each_other() -> None:
    rows = [{"name": "PyTorch", "accuracy": 0.9, "ms": {"1": 2.0, "64": 50.5}}]
    rows.append({"name": "int8", "accuracy": 0.899, "ms": {"1": 0.5, "64": 9.0}, "bytes": 1500})
    profile = {"profile": 0, "bfloat16": {"accuracy": 0.8}}
    profile |= {"float32": {"accuracy": 0.81, "bytes": 4000}, "int8": {"accuracy": 0.79, "bytes": 1000}}
    profile |= {"trained_on": {"accuracy": 0.795}, "trained_for_it": {"accuracy": 0.805}}
    lines = precision_table({"Net": {"whole": rows, "profiles": [profile]}}).splitlines()
    assert lines[2:4] == ["| Net | PyTorch | 90.00 |  | 2.00 | 50.50 |", "| Net | int8 | 89.90 | 2 | 0.50 | 9.00 |"]
    assert lines[-1] == "| Net | 0 | 81.00 | 80.00 | 79.00 | 79.50 | 80.50 | 4 | 1 |"


def test_prices_stand_beside_each_other() -> None:
    row = {"paid": "macs", "penalty": 0.1, "accuracy": 0.9, "macs": 0.5, "time": 0.8, "blocks_dropped": 0.25}
    lines = prices_table({"Net": {"rows": [row | {"width_of_the_others": 0.75}]}}).splitlines()
    assert lines[2] == "| Net | multiply-adds | 0.1 | 90.00 | 50.0 | 80.0 | 25.0 | 75.0 |"


def test_ways_of_deciding_stand_beside_each_other() -> None:
    row = {"method": "gates", "label": "density 0.5", "accuracy": 0.9, "macs_share": 0.5, "decision_share": 0.001}
    row |= {"ms": {"1": 1.0, "64": 30.0}}
    learnt = {"method": "rl once", "label": "penalty 0.1", "macs_share": 0.4, "accuracy": 0.91}
    equal = [learnt | {"accuracies": {"gates": None, "static": 0.88}, "beaten": []}]
    lines = compare_table({"dense": row, "rows": [dict(row)], "at_equal_macs": equal}).splitlines()
    assert lines[2] == "| dense |  | 90.00 | 50.0 | 0.10 | 1.00 | 30.00 |"
    assert lines[3] == "| gates | density 0.5 | 90.00 | 50.0 | 0.10 | 1.00 | 30.00 |"
    assert lines[-1] == "| rl once, penalty 0.1 | 40.0 | 91.00 |  | 88.00 |"


def test_without_markers_nothing_is_written() -> None:
    assert between_markers("a <!-- x -->old<!-- /x --> b", "x", "new") == "a <!-- x -->\nnew\n<!-- /x --> b"
    for text in ("", "<!-- x -->", "<!-- /x -->", "<!-- y --><!-- /y -->"):
        with pytest.raises(RLPruneError, match=r"no <!-- x --> \.\.\. <!-- /x --> to write between; add them"):
            between_markers(text, "x", "new")


def test_rankings_are_told_by_what_a_slice_is_worth_before_and_after_training_on() -> None:
    rows = [{"criterion": "taylor", "macs_cut": 0.494, "before": 0.3, "after": 0.9}]
    assert rankings_table({"Net": {"dense_accuracy": 0.9173, "rows": rows}}).splitlines()[2:] == [
        "| Net | taylor | 49.4 | 91.73 | 30.00 | 90.00 |"
    ]


def test_gates_stand_beside_their_controls() -> None:
    row = {"kind": "branches", "density": 0.651, "macs_cut": 0.34, "dense_accuracy": 0.9339, "accuracy": 0.93}
    row |= {"controls": {"shuffled": 0.9, "average": 0.8}}
    assert gates_table({"Net": [row], "None": []}).splitlines()[2:] == [
        "| Net | branches | 65.1 | 34.0 | 93.39 | 93.00 | 90.00 | 80.00 |"
    ]
