"""From a network to a verdict, where the right one is known: nothing to gain, nothing to tell, static, dynamic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from signals import QUICK, Signals, splits, without_clocks, without_files

import rlprune
from rlprune.optimization import OptimizeResult, load_result


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_files(monkeypatch)


def optimize(out: Path, hard: float = 0.0, n_test: int = 400, **goal: Any) -> OptimizeResult:
    network, data = Signals(), splits(hard, n_test)
    given: dict[str, Any] = {"plan": QUICK, "backend": "pytorch", "quiet": True, "out": out} | goal
    return rlprune.optimize(network, data, **given)


def test_where_hard_images_need_the_whole_the_network_that_decides_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_clocks(monkeypatch, cascade=5.0)
    result = optimize(tmp_path / "out", hard=0.1, max_drop=1.0, max_macs=0.6)
    assert (result.reached, result.deploy) == (True, "dynamic")
    static, deployed = result.row("static"), result.row(result.deploy_row)
    assert static is not None and deployed is not None
    assert static.drop > 5 and not static.meets
    assert deployed.drop == 0 and deployed.macs_share < 0.6
    assert "network that decides per image" in result.sentences[2] and "static loses" in result.sentences[2]
    assert load_result(tmp_path / "out") == result


def test_where_all_images_are_easy_one_small_network_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_clocks(monkeypatch, cascade=5.9, rlprune=5.9)
    result = optimize(tmp_path / "out", max_drop=1.0, max_macs=0.6)
    assert (result.reached, result.deploy, result.deploy_row) == (True, "static", "static")
    assert result.sentences[2].startswith("Deploy the one small network: it is simpler than cascade, and as good")


def test_where_nothing_is_faster_the_network_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_clocks(monkeypatch, narrowest=9.0, static=9.8, cascade=11.0, rlprune=12.0)
    result = optimize(tmp_path / "out", max_drop=0.5, min_speedup=2.0)
    assert (result.reached, result.deploy, result.deploy_file) == (False, "dense", None)
    assert result.sentences[0].startswith("Goal not reached")
    assert "eave the network as it is: nothing that was tried is faster" in result.sentences[2]
    assert any("times as fast here" in each for each in result.check.warnings)
    assert any("narrowest slice takes 90 % of the time for 25 %" in each for each in result.advice)


def test_with_no_target_a_network_that_gains_nothing_stays_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_clocks(monkeypatch, narrowest=9.0, static=9.8, cascade=11.0, rlprune=12.0)
    result = optimize(tmp_path / "out")
    assert (result.deploy, result.deploy_file) == ("dense", None)


def test_sixty_images_cannot_tell_half_a_point_and_the_number_that_would_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_clocks(monkeypatch, static=4.0)
    result = optimize(tmp_path / "out", n_test=60, max_drop=0.5, min_speedup=2.0)
    assert result.deploy == "static"
    assert result.n_needed is not None and result.n_needed > 60
    assert result.sentences[1].startswith("That cannot be told for sure: 60 test images")
    assert f"about {result.n_needed:,} would tell" in result.sentences[1]
    assert any(each.startswith("60 test images tell a drop to about") for each in result.check.warnings)


def test_that_few_images_cannot_choose_for_sure_is_said_with_how_many_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_clocks(monkeypatch, static=4.0)
    result = rlprune.optimize(
        Signals(), splits(n_test=60, n=40), plan=QUICK, backend="pytorch", quiet=True, out=tmp_path, max_drop=0.5
    )
    assert result.deploy == "static"
    assert "loses 0.00 points on the 40 validation images, which are too few to be sure" in result.sentences[2]
    assert result.sentences[1].startswith("That cannot be told for sure: 60 test images")
    assert any(each.startswith("40 validation images are too few to be sure") for each in result.check.warnings)


def test_a_row_that_cannot_be_made_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_clocks(monkeypatch)
    result = optimize(tmp_path / "out", max_macs=0.6)
    assert result.left_out == {"dense onnxruntime": "not written here"}
    assert [row.name for row in result.rows] == ["dense", "dense folded", "static", "cascade", "rlprune"]
