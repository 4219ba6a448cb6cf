from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nets import make_data, make_elastic, make_levels, make_policy
from PIL import Image

from rlprune.agents.benchmark import bench_env
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import RLPruneError
from rlprune.evaluation import tables
from rlprune.evaluation.benchmark import bench, bench_adapt
from rlprune.evaluation.runners import DEFAULT_ROWS, ROWS, available_rows, default_rows, prepare_runners
from rlprune.evaluation.timing.callers import bench_callers
from rlprune.evaluation.timing.plots import frontier_in_time
from rlprune.evaluation.timing.rivals import RowImages, rival_makers
from rlprune.evaluation.timing_results import BenchmarkResult, CallersBenchmark
from rlprune.metrics import accuracy, wilson_interval
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.utils.timing import Turns, interleaved

NETWORK = make_elastic("residual")
DATA = make_data(20)
COST = Cost(NETWORK)


@pytest.fixture(scope="module")
def dynamic() -> DynamicCNN:
    policy = make_policy(NETWORK, DATA, sorted_codebook(make_levels(NETWORK, 5, seed=3), COST), max_passes=2, seed=1)
    return DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes)


@pytest.fixture(scope="module")
def results(dynamic: DynamicCNN) -> BenchmarkResult:
    return bench(dynamic, DATA.images, (1, 8), seconds=0)


def test_rows_take_turns() -> None:
    calls: list[str] = []
    times = interleaved({name: lambda name=name: calls.append(name) for name in "abc"}, 0, min_rounds=4)
    assert "".join(calls) == "abc" * 5  # the first round warms up
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abc", 4)


def test_what_warms_a_row_up_runs_before_each_of_its_turns_untimed() -> None:
    calls: list[str] = []
    rows = {name: lambda name=name: calls.append(name) for name in "ab"}
    warm = {name: lambda name=name: calls.append(name.upper()) for name in "ab"}
    times = interleaved(rows, 0, min_rounds=2, warm=warm)
    assert "".join(calls) == "ab" + "AaBb" * 2
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("ab", 2)


def test_timing_goes_on_for_as_long_as_it_may() -> None:
    assert len(interleaved({"nothing": lambda: None}, 0.02, min_rounds=1)["nothing"]) > 10


def test_a_turn_goes_on_where_the_last_one_ended_and_leaves_a_smaller_batch_out() -> None:
    ran: list[list[int]] = []
    turn = Turns(lambda images: ran.append(images.tolist()), torch.arange(7), 2, 4)
    turn()
    assert ran == [[0, 1], [2, 3], [4, 5], [0, 1]]
    turn()
    assert ran[4:] == [[2, 3], [4, 5], [0, 1], [2, 3]]
    turn.warm()
    assert ran[8:] == [[4, 5]]


def test_a_turn_is_shared_by_its_batches(dynamic: DynamicCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[int]] = []

    def took_64(rows: dict[str, Turns], seconds: float, **_: object) -> dict[str, list[float]]:
        taken.append([turns.n_batches for turns in rows.values()])
        return {name: [64.0] * 3 for name in rows}

    monkeypatch.setattr("rlprune.evaluation.benchmark.interleaved", took_64)
    rows = bench(dynamic, make_data(40).images, (1, 8, 33)).rows
    assert taken == [[32] * 3, [4] * 3, [1] * 3]  # 32 images at least
    assert {(row.batch, row.ms, row.ms_low, row.ms_high) for row in rows} == {
        (1, 2, 2, 2),
        (8, 16, 16, 16),
        (33, 64, 64, 64),
    }


def test_the_rows_of_a_bundle(results: BenchmarkResult) -> None:
    assert [(row.name, row.backend, row.batch) for row in results.rows] == [
        (name, "pytorch", batch) for batch in (1, 8) for name in ("dense", "dense folded", "dynamic")
    ]
    keys = {"name", "backend", "batch", "ms", "ms_low", "ms_high", "images_per_s", "macs"}
    assert all(row.keys() == keys for row in results.to_json()["rows"])
    assert all((row.ms_low or 0) <= row.ms <= (row.ms_high or 0) for row in results.rows)
    assert all(row.images_per_s == pytest.approx(row.batch / row.ms * 1000) for row in results.rows)


def test_multiply_adds_are_counted_on_whole_batches(results: BenchmarkResult, dynamic: DynamicCNN) -> None:
    macs, dense = dynamic(DATA.images).macs.double(), int(COST.dense.macs)
    each, eights = macs.mean().item(), macs[:16].mean().item()
    assert [row.macs for row in results.rows] == [dense, dense, each, dense, dense, eights]
    assert results.macs_ratio == pytest.approx({1: dense / each, 8: dense / eights})


def test_the_speed_up_is_over_the_faster_dense_row(results: BenchmarkResult) -> None:
    ms = {(row.name, row.batch): row.ms for row in results.rows}
    best = {n: min(ms["dense", n], ms["dense folded", n]) for n in (1, 8)}
    assert results.speedup["dynamic"] == pytest.approx({n: best[n] / ms["dynamic", n] for n in (1, 8)})
    assert results.peak_memory_mb > 0
    assert {"hardware", "threads", "dtype", "torch", "date"} <= results.to_json().keys()


@pytest.mark.parametrize("batches", [(), (0,), (1, 21)])
def test_batches_that_cannot_be_are_refused(dynamic: DynamicCNN, batches: tuple[int, ...]) -> None:
    with pytest.raises(RLPruneError, match=r"batch sizes are \[.*\]; from 1 to 20, the number of images, is allowed"):
        bench(dynamic, DATA.images, batches)


def test_the_rows_of_the_environment() -> None:
    found = bench_env(NETWORK, DATA, n_envs=4, seconds=0)
    speed = {row.name: row.images_per_s for row in found.rows}
    assert list(speed) == ["masked_forward", "vec_env", "dummy_vec_env", "remembered"]
    assert all(
        row.keys() == {"name", "batch", "ms", "images_per_s"} and row["batch"] == 4 for row in found.to_json()["rows"]
    )
    assert found.vec_env_share == pytest.approx(speed["vec_env"] / speed["masked_forward"])
    assert found.vec_env_speedup == pytest.approx(speed["vec_env"] / speed["dummy_vec_env"])
    assert tables.benchmark(found).row_count == 4


def test_every_row_can_take_part(tmp_path: Path) -> None:
    elastic = make_elastic("plain")
    policy = make_policy(elastic, DATA, sorted_codebook(make_levels(elastic, 1, seed=3), Cost(elastic)), max_passes=2)
    dynamic = DynamicCNN(elastic, policy, DATA.mean, DATA.std, DATA.classes)
    static = elastic.slice(elastic.uniform(1))
    given = RowImages(DATA, DATA, DATA, {"static 0.25": static})
    found = bench(dynamic, DATA.images, (2,), 0, available_rows(), given)
    rows = {row.name: row for row in found.rows}
    assert [*rows] == [*available_rows(), "static 0.25", "static 0.25 onnxruntime"] and available_rows() == ROWS
    spent = dynamic(DATA.images).macs.double().mean().item()
    assert (rows["static"].macs or 0) <= spent < (rows["dense compiled"].macs or 0) == rows["dense onnxruntime"].macs
    for name in ("dynamic", "dynamic compiled", "dynamic onnxruntime"):
        backend = rows[name].backend
        alike = {other: row for other, row in rows.items() if not row.int8}
        dense = [row.ms for other, row in alike.items() if other.startswith("dense") and row.backend == backend]
        assert found.speedup[name][2] == pytest.approx(min(dense) / rows[name].ms)
        best = min(row.ms for other, row in alike.items() if other.startswith("dense"))
        assert (found.speedup_overall or {})[name][2] == pytest.approx(best / rows[name].ms)
    int8 = rows["dense int8 onnxruntime"].ms / rows["dynamic int8 onnxruntime"].ms
    assert found.speedup["dynamic int8 onnxruntime"][2] == pytest.approx(int8)
    assert found.left_out is None and found.n_images == 20 and {*(found.versions or {})} >= {"onnx", "onnxruntime"}
    right = {"dense": accuracy(elastic.slice(), DATA), "static 0.25": accuracy(static, DATA)}
    right["dynamic"] = float((dynamic(DATA.images).labels == DATA.labels).double().mean())
    for name, share in right.items():
        of_network = [row.accuracy for other, row in rows.items() if other.startswith(name) and not row.int8]
        assert of_network == pytest.approx([share] * len(of_network))
    assert all(
        (low, high) == wilson_interval(round(20 * (row.accuracy or 0)), 20)
        for row in found.rows
        for low, high in [row.accuracy_interval or (0, 0)]
    )
    assert tables.benchmark(found).columns[-1].header == "top-1, %"
    assert BenchmarkResult.from_json(json.loads(json.dumps(found.to_json()))) == found
    frontier_in_time(tmp_path / "time.png", found)
    with Image.open(tmp_path / "time.png") as picture:
        assert picture.width > 300


def test_a_cascade_costs_no_more_than_the_policy_where_it_is_tuned() -> None:
    elastic = make_elastic("residual")
    book = sorted_codebook(make_levels(elastic, 3, seed=3), Cost(elastic))
    dynamic = DynamicCNN(elastic, make_policy(elastic, DATA, book, max_passes=3), DATA.mean, DATA.std, DATA.classes)
    given = RowImages(DATA, DATA, DATA)
    runners, _ = prepare_runners(dynamic, 0.5, ("cascade",), DATA.images, dict(rival_makers(dynamic, given)))
    predicted = runners["cascade"].run(DATA.images)
    assert runners["cascade"].macs == pytest.approx(predicted.macs.double().mean().item())
    assert int(predicted.macs.sum()) <= 1.01 * int(
        dynamic(DATA.images).macs.sum()
    )  # its decisions are not in the price


def test_rows_that_need_images_say_so(dynamic: DynamicCNN, results: BenchmarkResult, tmp_path: Path) -> None:
    found = bench(dynamic, DATA.images, (2,), seconds=0, rows=("dynamic", "cascade", "dynamic int8 onnxruntime"))
    reason = "it needs images that do not test; name some with --data"
    assert found.left_out == dict.fromkeys(("cascade", "dynamic int8 onnxruntime"), reason)
    with pytest.raises(RLPruneError, match="a picture of accuracy against time needs accuracies"):
        frontier_in_time(tmp_path / "time.png", results)


def test_a_row_that_cannot_be_made_is_left_out_and_says_why(
    dynamic: DynamicCNN, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_compiler(network: object, **_: object) -> object:
        def run(images: object) -> object:
            raise RuntimeError("Failed to find C++ compiler. Please specify\nmore")

        return run

    monkeypatch.setattr("torch.compile", no_compiler)
    monkeypatch.setattr("rlprune.evaluation.timing.backends._ONNX_PACKAGES", ("nothing_like_onnx",))
    asked = ("static", "dense compiled", "dense onnxruntime", "dynamic")
    found = bench(dynamic, DATA.images, (2,), seconds=0, rows=asked)
    assert [row.name for row in found.rows] == ["dynamic"] and found.left_out is not None
    assert list(found.left_out) == ["dense compiled", "dense onnxruntime", "static"]
    assert found.left_out["dense compiled"] == "RuntimeError: Failed to find C++ compiler. Please specify"
    assert "Torch-Pruning cannot prune this network (" in found.left_out["static"]
    assert "rlprune[onnx]" in found.left_out["dense onnxruntime"]
    said = capsys.readouterr().err.splitlines()
    assert said == [f"rlprune: the row {name} is left out: {why}" for name, why in found.left_out.items()]
    assert BenchmarkResult.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(RLPruneError, match="no row can be timed: static: Torch-Pruning cannot prune this network"):
        bench(dynamic, DATA.images, (2,), seconds=0, rows=("static",))


def test_the_rows_of_those_who_name_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with_onnx = ("dense", "dense folded", "dense onnxruntime", "dynamic", "dynamic onnxruntime")
    for packages, rows in (((), with_onnx), (("nothing_like_onnx",), DEFAULT_ROWS)):
        monkeypatch.setattr("rlprune.evaluation.timing.backends._ONNX_PACKAGES", packages)
        assert default_rows() == rows


def test_a_speed_up_needs_a_dense_row(dynamic: DynamicCNN) -> None:
    assert bench(dynamic, DATA.images, (2,), seconds=0, rows=("dynamic",)).speedup == {"dynamic": {2: None}}


def test_a_row_that_is_not_there_is_named(dynamic: DynamicCNN) -> None:
    with pytest.raises(RLPruneError, match=r"there is no row 'dens'; allowed: dense, dense folded, .*"):
        bench(dynamic, DATA.images, (2,), seconds=0, rows=("dens",))


def test_the_table_has_every_row(results: BenchmarkResult) -> None:
    assert tables.benchmark(results).row_count == 6


def test_the_rows_of_adaptation() -> None:
    elastic = make_elastic("residual")
    found = bench_adapt(elastic, DATA, batch=8, seconds=0)
    ratios = [f"keep ratio {ratio:g}" for ratio in (1, 0.75, 0.5, 0.25)]
    assert [row.name for row in found.rows] == list(found.step_share) == list(found.macs_share) == ratios
    assert found.step_share["keep ratio 1"] == found.macs_share["keep ratio 1"] == 1
    half = int(COST.of(elastic.uniform(2)).macs) / int(COST.dense.macs)
    assert found.macs_share["keep ratio 0.5"] == pytest.approx(half)
    assert tables.benchmark(found).row_count == 4


@pytest.mark.parametrize("batch", [1, 21])
def test_a_training_step_needs_images(batch: int) -> None:
    with pytest.raises(RLPruneError, match=f"the batch size is {batch}; from 2 to 20, the number of images, is allow"):
        bench_adapt(make_elastic("residual"), DATA, batch=batch)


def test_callers_are_answered_by_both_networks(dynamic: DynamicCNN) -> None:
    found = bench_callers(dynamic, DATA.images, n_callers=5, seconds=0, max_batch=4)
    dense, ours = found.rows
    assert [row.name for row in found.rows] == ["dense", "dynamic"] and (found.callers, found.max_batch) == (5, 4)
    assert dense.macs == float(COST.dense.macs) and found.macs_ratio == dense.macs / ours.macs
    assert ours.macs == dynamic(DATA.images).macs.double().mean().item()
    assert found.speedup == ours.images_per_s / dense.images_per_s
    assert all(1 <= row.mean_bucket <= 4 and 0 < row.p50_ms <= row.p99_ms for row in found.rows)
    assert CallersBenchmark.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert tables.callers(found).row_count == 2
    with pytest.raises(RLPruneError, match="n_callers=0: give a whole number from 1 to 4096"):
        bench_callers(dynamic, DATA.images, 0)
