from __future__ import annotations

from typing import Any

import pytest
from result_tables import (
    between_markers,
    budgets_table,
    compare_table,
    gates_table,
    growth_tables,
    headline_table,
    precision_table,
    prices_table,
    rankings_table,
    reference_table,
    seeds_table,
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
        "| Net | pytorch | 1 | 3.00 | 2.00 | 1.50 | 2.00 | 63.6 |",
        "| Net | onnxruntime | 1 | 5.00 |  | 2.00 | 2.50 | 63.6 |",
    ]


def test_what_signals_are_worth_stands_at_one_cost() -> None:
    rows = [{"name": "pixels", "accuracy": 0.9012}, {"name": "beliefs", "accuracy": None}]
    assert signals_table({"Net": {"at_macs_share": 0.3219, "rows": rows}}).splitlines()[2:] == [
        "| Net | 67.8 | pixels | 90.12 |",
        "| Net | 67.8 | beliefs | no policy costs that |",
    ]


def test_one_policy_stands_beside_those_for_one_penalty_each() -> None:
    figures = {
        "alone": {"accuracy": 0.91, "macs_share": 0.4},
        "one_at_that_budget": {"accuracy": 0.909, "macs_share": 0.41},
    }
    streams = [{"target": 0.5, "held": 0.503, "without": 0.52, "without_when_hard": 0.63}]
    lines = budgets_table({"Net": {"rows": [{"penalty": 0.05, **figures}], "streams": streams}}).splitlines()
    assert lines[2] == "| Net | 0.05 | 91.00 | 60.0 | 90.90 | 59.0 |"
    assert lines[-1] == "| Net | 50.0 | 49.7 | 48.0 | 37.0 |"


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
    assert lines[2] == "| Net | MACs | 0.1 | 90.00 | 50.0 | 20.0 | 25.0 | 75.0 |"


def test_ways_of_deciding_stand_beside_each_other() -> None:
    row = {"method": "gates", "label": "density 0.5", "accuracy": 0.9, "macs_share": 0.5, "decision_share": 0.001}
    row |= {"ms": {"1": 1.0, "64": 30.0}}
    learnt = {"method": "rl once", "label": "penalty 0.1", "macs_share": 0.4, "accuracy": 0.91}
    equal = [learnt | {"accuracies": {"gates": None, "static": 0.88}, "beaten": []}]
    lines = compare_table({"dense": row, "rows": [dict(row)], "at_equal_macs": equal}).splitlines()
    assert lines[2] == "| dense |  | 90.00 | 50.0 | 0.10 | 1.00 | 30.00 |"
    assert lines[3] == "| gates | density 0.5 | 90.00 | 50.0 | 0.10 | 1.00 | 30.00 |"
    assert lines[-1] == "| rl once, penalty 0.1 | 60.0 | 91.00 |  | 88.00 |"


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


def test_the_best_published_rival_is_the_most_accurate_of_those_that_save_about_as_much() -> None:
    bundle = {"accuracy": 0.92, "dense_accuracy": 0.93, "macs_cut": 0.55, "controls": {}}
    bundle["controls"] = {"shuffled": 0.9, "best_static": 0.91, "uniform": 0.8}
    others = [("far", 99.0, 44.9), ("near", 92.5, 65), ("nearer", 91.5, 55)]
    rows = [{"network": "Net", "method": name, "pruned": pruned, "macs_cut": cut} for name, pruned, cut in others]
    cheaper = bundle | {"accuracy": 0.5}
    assert headline_table({"Net": {"budgets": [bundle, cheaper]}}, rows).splitlines()[2:] == [
        "| Net | 93.00 | **92.00** | 55.0 | 90.00 | 91.00 | near: 92.50 at 65 |"
    ]


def test_rivals_that_results_know_have_columns_and_rows_of_their_own() -> None:
    controls = {"shuffled": 0.9, "best_static": 0.91, "uniform": 0.8, "cascade": 0.918, "oracle": 0.95}
    bundle = {"accuracy": 0.92, "dense_accuracy": 0.93, "macs_cut": 0.55, "params_cut": 0.5, "controls": controls}
    bundle["controls_macs_cut"] = dict.fromkeys(controls, 0.55)
    near = {"network": "Net", "method": "near", "dense": 93.0, "pruned": 92.5, "macs_cut": 55, "per_image": False}
    header, _, row = headline_table({"Net": {"budgets": [bundle]}}, [near]).splitlines()
    assert "| shuffled % | cascade % | best static % |" in header and "| 90.00 | 91.80 | 91.00 |" in row
    rows = reference_table({"Net": {"budgets": [bundle]}}, [near]).splitlines()
    assert "| Net | its control: cascade | yes | 93.00 | 91.80 | 55.0 |  |" in rows
    assert "| Net | its control: best static | no | 93.00 | 91.00 | 55.0 |  |" in rows


def test_seeds_stand_above_their_mean() -> None:
    rows = [{"seed": 3, "accuracy": 0.92, "macs_cut": 0.5577, "shuffled": 0.9}]
    lines = seeds_table({"rows": rows, "accuracy_mean": 0.92, "accuracy_std": 0.0004}).splitlines()
    assert lines[2] == "| 3 | 92.00 | 55.8 | 90.00 |"
    assert lines[-1] == "Mean accuracy 92.00 %, standard deviation 0.04 points."


def test_growth_has_a_table_for_each_thing_that_grows() -> None:
    found = {"batch": [{"batch": 64, "dense": 2.5, "dynamic": 1.25, "peak_mb": 800.4}]}
    found |= {"profiles": [{"profiles": 2, "prepare_s": 0.5, "held": 1.5, "run_64_s": 0.0625}]}
    found |= {"groups": [{"groups": 9, "find_s": 0.5, "slice_s": 0.0225}]}
    lines = growth_tables(found).splitlines()
    assert lines[2] == "| 64 | 2.50 | 1.25 | 800 |"
    assert lines[6] == "| 2 | 0.50 | 1.50 | 0.062 |" and lines[10] == "| 9 | 0.50 | 0.022 |"
