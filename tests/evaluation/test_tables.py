from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
import torch
from nets import IMAGE_SHAPE, make_elastic
from rich.console import Console
from rich.table import Table
from torch import nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.evaluation import tables
from rlprune.evaluation.results import (
    Conditions,
    ControlFigures,
    DecisionFigures,
    DenseResult,
    EvaluationResult,
    Frontier,
)
from rlprune.evaluation.timing_results import BenchmarkResult, BenchmarkRow
from rlprune.profiles.cost import Cost

NETWORK = make_elastic("residual")
MARKUP = "[/bold] [red]x[/] [1, 2] \\[y]"


def shown(*found: Table) -> str:
    """As a terminal shows it, without colours."""
    console = Console(file=io.StringIO(), width=250, color_system=None)
    console.print(*found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_channels_that_stay_together_are_shown_as_such() -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 32, 3), nn.Conv2d(32, 32, 3, groups=4), nn.Flatten()]
    network = ElasticCNN.from_model(nn.Sequential(*layers, nn.Linear(3200, 5)).eval(), IMAGE_SHAPE)
    assert "4 x 8" in shown(*tables.groups(network))


def test_groups_and_what_is_left_alone() -> None:
    text = shown(*tables.groups(NETWORK))
    cost = Cost(NETWORK)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    for index, group in enumerate(NETWORK.groups):
        own, (row,) = cost.of_group(index), (row for row in rows if row[0] == group.name and len(row) == 7)
        share = f"{100 * int(own.macs) / int(cost.dense.macs):.1f}"
        assert row[1] == str(group.n_channels) and row[2] == "/".join(map(str, NETWORK.widths[index].unique().tolist()))
        assert row[3:] == [str(int(own.params)), f"{int(own.macs) / 1e6:.2f}", share, "yes"]
    assert all(item.reason in text for item in NETWORK.unprunable)


def test_a_codebook_s_last_profile_is_all_of_the_network() -> None:
    lines = shown(tables.codebook(NETWORK, torch.stack([NETWORK.uniform(0), NETWORK.full]))).splitlines()
    assert "0 0 0" in lines[-3] and "1 1 1" in lines[-2] and lines[-2].count("100.0 %") == 2


CONDITIONS = Conditions(hardware=MARKUP, threads=1, dtype="float32", torch="2.13.0", date="2026-11-25")


def evaluation(**change: Any) -> EvaluationResult:
    found = EvaluationResult(
        accuracy=0.9012,
        accuracy_interval=(0.88, 0.92),
        dense_accuracy=0.91,
        macs_cut=0.515,
        params_cut=0.25,
        n_images=1000,
        distinct_profiles=4,
        mean_passes=1.25,
        dense="original",
        controls=ControlFigures(uniform=0.801, random=0.602, best_static=0.853, shuffled=0.874),
        controls_macs_cut=ControlFigures(uniform=0.515, random=0.404, best_static=0.515, shuffled=0.515),
        policy_macs_share=0.001,
        runs_per_image=(1.0, 0.25),
        frontier=Frontier(uniform=(), static=(), codebook=()),
        dense_macs=1000,
        dense_params=100,
        n_candidates=8,
        seed=0,
        conditions=CONDITIONS,
    )
    return dataclasses.replace(found, **change)


def benchmark(rows: list[BenchmarkRow], speedup: dict[str, dict[int, float | None]]) -> BenchmarkResult:
    ratios = {row.batch: 2.25 for row in rows}
    return BenchmarkResult(
        rows=tuple(rows), speedup=speedup, macs_ratio=ratios, peak_memory_mb=1.0, conditions=CONDITIONS
    )


def test_an_evaluation_stands_beside_its_controls() -> None:
    text = " ".join(shown(tables.evaluation(evaluation())).split())  # the caption may wrap anywhere
    assert "90.12" in text and "88.0 to 92.0 %" in text and "91.00" in text
    assert text.count("51.5") == 4
    assert all(figure in text for figure in ("80.10", "60.20", "85.30", "87.40", "4 distinct", "1.25 passes"))
    assert MARKUP in text and "dense (original)" in text


def test_rivals_that_were_measured_have_rows_and_what_explains_a_tie_is_told() -> None:
    found = evaluation()
    controls = dataclasses.replace(found.controls, cascade=0.8888, oracle=0.9555)
    cuts = dataclasses.replace(found.controls_macs_cut, cascade=0.515, oracle=0.515)
    decisions = DecisionFigures(breaks=0.021, repairs=0.303, policy_auroc=0.8125)
    results = evaluation(controls=controls, controls_macs_cut=cuts, decisions=decisions)
    text = " ".join(shown(tables.evaluation(results)).split())
    assert "tuned cascade │ 88.88" in text and "oracle │ 95.55" in text and "trained for it" not in text
    assert "breaks 2.1 % of what was right and repairs 30.3 % of what was wrong" in text
    assert "the policy 0.812, the margin -." in text


def test_a_control_that_is_dearer_says_so() -> None:
    (line,) = (line for line in shown(tables.evaluation(evaluation())).splitlines() if "random profiles" in line)
    assert "60.20" in line and "40.4" in line and "51.5" not in line


def test_a_benchmark_adds_the_best_times_of_each_batch_size() -> None:
    times = {("dense", 1): 3.0, ("dense channels_last", 1): 2.0, ("dynamic", 1): 1.0}
    times |= {("dense", 64): 6.0, ("dense channels_last", 64): 7.0, ("dynamic", 64): 5.0}
    rows = [BenchmarkRow(name=name, batch=batch, ms=ms, images_per_s=1.0) for (name, batch), ms in times.items()]
    lines = shown(tables.evaluation(evaluation(), benchmark(rows, {}))).splitlines()
    assert any("ms at 1 " in line and "ms at 64 " in line for line in lines)
    for name, expected in (("│ dense", ["2.00", "6.00"]), ("│ learnt", ["1.00", "5.00"])):
        (line,) = (line for line in lines if line.startswith(name))
        assert [cell.strip() for cell in line.split("│")[-3:-1]] == expected


def test_an_ordinary_network_has_one_row() -> None:
    dense = DenseResult(
        accuracy=0.9, accuracy_interval=(0.8, 0.95), dense_accuracy=0.9, n_images=10, conditions=CONDITIONS
    )
    table = tables.evaluation(dense)
    assert table.row_count == 1 and "90.00" in shown(table)


def test_names_with_brackets_are_shown_as_they_are() -> None:
    row = {"image": f"{MARKUP}.png", "class": MARKUP, "probability": 0.5}
    text = shown(tables.predictions([row | {"passes": 2, "keep_ratio": 0.75, "macs_share": 0.123}]))
    assert text.count(MARKUP) == 2 and "0.123" in text


def test_layers_with_brackets_are_shown_as_they_are() -> None:
    network = make_elastic("plain")
    network.groups = tuple(dataclasses.replace(group, name=MARKUP) for group in network.groups)
    network.unprunable = tuple(dataclasses.replace(item, reason=MARKUP) for item in network.unprunable)
    text = shown(*tables.groups(network))
    assert text.count(MARKUP) == len(network.groups) + len(network.unprunable)


@pytest.mark.parametrize("name", ["dense", "dynamic"])
def test_only_the_dynamic_row_of_a_benchmark_has_a_speed_up(name: str) -> None:
    row = BenchmarkRow(name=name, batch=8, ms=1.5, images_per_s=5333.3)
    text = shown(tables.benchmark(benchmark([row], {"dynamic": {8: 1.75}})))
    assert ("1.75" in text) == ("2.25" in text) == (name == "dynamic")
    assert "5333" in text and MARKUP in text
