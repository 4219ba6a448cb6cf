from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference_plots import growth_plot, one_policy_plot, speed_plot
from reference_results import BudgetsResult, GrowthResult

from rlprune.errors import MissingExtraError
from rlprune.evaluation.timing_results import BenchmarkResult
from rlprune.utils.json_codec import JsonResult

REFERENCE = Path(__file__).parents[2] / "runs" / "reference"
SPEED = BenchmarkResult.load(REFERENCE / "resnet20" / "bench.json")


@pytest.mark.parametrize(("name", "kind"), [("resnet20/budgets.json", BudgetsResult), ("growth.json", GrowthResult)])
def test_committed_files_come_back_as_the_same_text(name: str, kind: type[JsonResult]) -> None:
    result = kind.load(REFERENCE / name)
    assert json.dumps(result.to_json(), indent=1) + "\n" == (REFERENCE / name).read_text()


def test_one_policy_is_drawn_beside_many(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = BudgetsResult.load(REFERENCE / "resnet20" / "budgets.json")
    turned = replace(results, rows=results.rows[::-1], frontier=results.frontier[::-1])
    for name, order in (("some", results), ("turned", turned)):
        one_policy_plot(tmp_path / f"{name}.png", order)
    some, other = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("some", "turned"))
    assert (some == other).all() and len(np.unique(some.reshape(-1, some.shape[-1]), axis=0)) > 100


def test_every_network_has_its_bars(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    speed_plot(tmp_path / "one.png", {"net": SPEED})
    cheaper = {name: {batch: 0.5 for batch in batches} for name, batches in SPEED.speedup.items()}
    speed_plot(tmp_path / "slower.png", {"net": replace(SPEED, speedup=cheaper)})
    speed_plot(tmp_path / "two.png", {"net": SPEED, "other": SPEED})
    one, slower, two = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("one", "slower", "two"))
    assert one.shape == slower.shape and (one != slower).any()
    assert two.shape != one.shape or (one != two).any()
    assert len(np.unique(one.reshape(-1, one.shape[-1]), axis=0)) > 100


def test_a_row_without_a_dense_one_has_no_bar(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    speed_plot(tmp_path / "none.png", {"net": replace(SPEED, speedup={"dynamic": {1: None, 64: 2.0}})})
    assert (tmp_path / "none.png").exists()


def test_growth_is_a_page_of_charts_of_one_unit_each(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = GrowthResult.load(REFERENCE / "growth.json")
    growth_plot(tmp_path / "once.png", results)
    dearer = replace(results.batch[0], peak_mb=2 * results.batch[0].peak_mb)
    growth_plot(tmp_path / "more.png", replace(results, batch=(dearer, *results.batch[1:])))
    once, more = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("once", "more"))
    assert once.shape == more.shape and (once != more).any()


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"'matplotlib', which is not installed; .*rlprune\[plots\]"):
        speed_plot(tmp_path / "plot.png", {"net": SPEED})
    assert not list(tmp_path.iterdir())
