"""What `rlprune bench` times, and draws."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pets import DATA, MODEL, PRUNE, run_json
from PIL import Image

from rlprune.cli.main import main
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.export import to_onnx
from rlprune.evaluation.runners import default_rows
from rlprune.evaluation.timing import ProfileResult, runner
from rlprune.evaluation.timing.backends import has_onnx
from rlprune.evaluation.timing.profile_results import ONNX_PIECES


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """All of these tests have one bundle, and to export it takes seconds."""
    exported: list[bytes] = []

    def once(dynamic: DynamicCNN, calibration: torch.Tensor | None = None) -> bytes:
        exported.extend([] if exported else [to_onnx(dynamic, calibration)])
        return exported[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "to_onnx", once)
        yield


def test_bench_times_a_bundle(project: Path) -> None:
    results = run_json(project, "bench", "bundle", "--batch", "1", "4", "--seconds", "0")
    assert [(row["name"], row["batch"]) for row in results["rows"]] == [
        (name, batch) for batch in (1, 4) for name in default_rows()
    ]
    assert results["speedup_overall"].keys() == results["speedup"].keys()
    assert results["speedup"]["dynamic"].keys() == results["macs_ratio"].keys() == {"1", "4"}


def test_bench_lets_callers_share_buckets(project: Path) -> None:
    bench = ("bench", "bundle", *DATA, "--callers", "3", "--batch", "2", "--max-wait-ms", "1", "--seconds", "0")
    results = run_json(project, *bench)
    assert [row["name"] for row in results["rows"]] == ["dense", "dynamic"]
    assert (results["callers"], results["max_batch"], results["max_wait_ms"]) == (3, 2, 1.0)


def test_bench_says_where_the_time_goes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run_json(project, "bench", "bundle", *DATA, "--profile", "--batch", "1", "4", "--seconds", "0")
    assert [row["batch"] for row in results["rows"]] == [1, 4]
    said = capsys.readouterr().out
    assert "normalise" in said
    found = ProfileResult.from_json(results)
    assert found.to_json() == results and (found.onnxruntime is not None) == has_onnx()
    for row, other in zip(found.onnxruntime or (), found.rows, strict=has_onnx()):
        assert (row.backend, row.batch, row.n_images) == ("onnxruntime", other.batch, other.n_images)
        assert row.macs_ratio == pytest.approx(other.macs_ratio)
        assert row.overhead_ms == pytest.approx(row.dynamic_ms - row.floor_ms)
        shares = {piece.name: piece.share for piece in row.pieces}
        assert [*shares] == [*ONNX_PIECES] and sum(shares.values()) == pytest.approx(1)
        assert all(share > 0 for name, share in shares.items() if name != "reorder") and "multiply" in said


def test_bench_draws_accuracy_against_time(project: Path) -> None:
    main([*PRUNE[:-1], "pruned", "--how", "uniform", "--budget", "0.6"])
    rows = ("--rows", "dense", "cascade", "dynamic", "--static", "pruned", "--plot", "time.png")
    results = run_json(project, "bench", "bundle", *DATA, *rows, "--batch", "1", "--seconds", "0")
    found = {row["name"]: row for row in results["rows"]} | (results.get("left_out") or {})
    assert {*found} == {"dense", "cascade", "dynamic", "static pruned", "static pruned onnxruntime"}
    evaluated = run_json(project, "evaluate", "bundle", *DATA, "--no-controls")
    assert found["dynamic"]["accuracy"] == evaluated["accuracy"]
    assert found["dense"]["accuracy"] == evaluated["dense_accuracy"]
    with Image.open(project / "time.png") as picture:
        assert picture.format == "PNG"


def test_bench_times_the_environment(project: Path) -> None:
    results = run_json(project, "bench", "env", *MODEL, *DATA, "--batch", "4", "--seconds", "0")
    assert [row["name"] for row in results["rows"]] == ["masked_forward", "vec_env", "dummy_vec_env", "remembered"]


def test_bench_times_adaptation(project: Path) -> None:
    results = run_json(project, "bench", "adapt", *MODEL, *DATA, "--batch", "4", "--seconds", "0")
    assert [row["name"] for row in results["rows"]] == [f"keep ratio {ratio}" for ratio in ("1", "0.75", "0.5", "0.25")]


def test_bench_without_its_data_times_on_noise_and_says_so(
    project: Path, apart: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rlprune.data.loading.load", lambda *_, **__: pytest.fail("what the notes name was loaded"))
    bench = ["bench", str(project / "bundle"), "--batch", "2", "--seconds", "0", "--rows", "dense", "dynamic"]
    main([*bench, "--json", "figures.json"])
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("rlprune: timing on noise;") and "--data" in said and said.endswith("which it calls 'pets'")
    assert json.loads(Path("figures.json").read_text())["macs_ratio"].keys() == {"2"}
