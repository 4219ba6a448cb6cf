"""Results are what their files hold: every committed one comes back the same, and a wrong one is told by its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlprune.errors import RLPruneError
from rlprune.evaluation.results import EvaluationResult, GatedResult, RecipeResult
from rlprune.evaluation.timing_results import BenchmarkResult, BenchmarkRow, ComparisonResult
from rlprune.optimization.result import OptimizeResult
from rlprune.utils.json_codec import JsonResult

REFERENCE = Path(__file__).parents[2] / "runs" / "reference"
KINDS: dict[str, type[JsonResult]] = {
    "digits/results.json": EvaluationResult,
    "digits/report.json": OptimizeResult,
    "digits/compare.json": ComparisonResult,
    "resnet20/results.json": RecipeResult,
    "resnet20/bench.json": BenchmarkResult,
    "resnet20/time.json": BenchmarkResult,
    "m_cifarnet/time.json": BenchmarkResult,
    "resnet20/compare.json": ComparisonResult,
    "resnet20/gates.json": GatedResult,
    "m_cifarnet/results.json": RecipeResult,
    "m_cifarnet/bench.json": BenchmarkResult,
    "resnet56/results.json": RecipeResult,
    "mobilenet_v2/results.json": RecipeResult,
    "mobilenet_v2/bench.json": BenchmarkResult,
    "resnet56/bench.json": BenchmarkResult,
    "resnet56/time.json": BenchmarkResult,
    "resnet56/bench_latency.json": BenchmarkResult,
    "resnet56/branches.json": GatedResult,
    "vgg16_bn/bench.json": BenchmarkResult,
}


@pytest.mark.parametrize("name", KINDS)
def test_committed_files_come_back_as_the_same_text(name: str) -> None:
    text = (REFERENCE / name).read_text()
    result = KINDS[name].load(REFERENCE / name)
    assert json.dumps(result.to_json(), indent=1) + "\n" == text
    assert KINDS[name].from_json(result.to_json()) == result


def digits() -> Any:
    return json.loads((REFERENCE / "digits" / "results.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"macs_cut": None}, r"f has null under the key 'macs_cut'; expected a number"),
        ({"n_images": 1.5}, r"f has 1.5 under the key 'n_images'; expected a whole number"),
        ({"n_images": True}, r"f has true under the key 'n_images'; expected a whole number"),
        ({"dense": 3}, r"f has 3 under the key 'dense'; expected a text"),
        ({"controls": []}, r"f has \[\] under the key 'controls'; expected an object"),
        ({"controls": {"uniform": 0.5}}, r"f lacks the key 'controls.random' of a ControlFigures: .* make it again"),
        ({"accuracy_interval": [0.5]}, r"f has \[0.5\] under the key 'accuracy_interval'; expected a list of 2"),
        ({"runs_per_image": [1.0, "x"]}, r"f has \"x\" under the key 'runs_per_image.1'; expected a number"),
        ({"hardware": None}, r"f has null under the key 'hardware'; expected a text"),
        ({"luck": 1}, r"f has the unknown key 'luck'; a EvaluationResult has: accuracy, "),
    ],
)
def test_what_is_wrong_is_told_by_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        EvaluationResult.from_json(digits() | change, "f")


@pytest.mark.parametrize("key", ["accuracy", "frontier", "date"])
def test_a_key_that_an_older_version_did_not_write_is_named(key: str) -> None:
    content = digits()
    del content[key]
    with pytest.raises(RLPruneError, match=rf"f lacks the key '{key}' of a \w+: it is of another kind, or an older"):
        EvaluationResult.from_json(content, "f")


def test_files_that_are_no_results_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for text, message in (
        ("[1]", r"holds \[1\]; expected an object"),
        ("{", "cannot be read"),
        ("{}", "lacks the key"),
    ):
        path.write_text(text)
        with pytest.raises(RLPruneError, match=rf"results\.json {message}"):
            BenchmarkResult.load(path)
    with pytest.raises(RLPruneError, match=r"none\.json cannot be read"):
        BenchmarkResult.load(tmp_path / "none.json")


def test_batch_sizes_are_numbers() -> None:
    content = json.loads((REFERENCE / "resnet20" / "bench.json").read_text())
    assert list(BenchmarkResult.from_json(content).macs_ratio) == [1, 64]
    content["macs_ratio"] = {"many": 2.0}
    with pytest.raises(RLPruneError, match="has 'many' as a key of 'macs_ratio'; expected a whole number"):
        BenchmarkResult.from_json(content)


def test_what_is_none_by_default_is_left_out() -> None:
    row = BenchmarkRow(name="step", batch=8, ms=1.5, images_per_s=5333.0)
    assert row.to_json() == {"name": "step", "batch": 8, "ms": 1.5, "images_per_s": 5333.0}
    assert BenchmarkRow.from_json(row.to_json()) == row


def test_the_headline_is_what_a_bundle_carries() -> None:
    found = EvaluationResult.from_json(digits())
    assert found.headline() == {
        key: digits()[key] for key in ("accuracy", "dense_accuracy", "macs_cut", "params_cut", "mean_passes")
    }
