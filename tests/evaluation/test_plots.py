from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from rlprune.errors import MissingExtraError
from rlprune.evaluation.image_strips import ImageStrip
from rlprune.evaluation.plots import budgets_plot, compare_plot, frontier_plot
from rlprune.evaluation.results import (
    Conditions,
    ControlFigures,
    EvaluationResult,
    Frontier,
    Interval,
    PenaltyResult,
    RecipeResult,
)
from rlprune.evaluation.timing_results import ComparisonResult, ComparisonRow
from rlprune.metrics import wilson_interval

CONDITIONS = Conditions(hardware="a CPU", threads=1, dtype="float32", torch="2.13.0", date="2026-11-25")
RESULTS = EvaluationResult(
    accuracy=0.9,
    accuracy_interval=(0.88, 0.92),
    dense_accuracy=0.91,
    macs_cut=0.5,
    params_cut=0.5,
    n_images=100,
    distinct_profiles=2,
    mean_passes=1.5,
    dense="original",
    controls=ControlFigures(uniform=0.8, random=0.6, best_static=0.85, shuffled=0.87),
    controls_macs_cut=ControlFigures(uniform=0.5, random=0.5, best_static=0.5, shuffled=0.5),
    policy_macs_share=0.001,
    runs_per_image=(1.0, 0.5),
    frontier=Frontier(
        uniform=((0.1, 0.5), (1.0, 0.91)),
        static=((0.1, 0.6), (0.5, 0.85), (1.0, 0.91)),
        codebook=((0.2, 0.7), (1.0, 0.91)),
    ),
    dense_macs=1000,
    dense_params=100,
    n_candidates=8,
    seed=0,
    conditions=CONDITIONS,
)


def recipe(*evaluations: EvaluationResult) -> RecipeResult:
    budgets = tuple(PenaltyResult(penalty=0.1 * n, evaluation=each) for n, each in enumerate(evaluations, 1))
    return RecipeResult(recipe={"model": "net"}, budgets=budgets)


def pixels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def n_colours(path: Path) -> int:
    picture = pixels(path)
    return len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0))


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    correct = torch.tensor([True, False, True])
    strip = ImageStrip(images, torch.tensor([0.1, 0.5, 2.0]), correct, ("cat",) * 3, ("cat", "dog", "cat"))
    frontier_plot(tmp_path / "plot.png", RESULTS, {})
    frontier_plot(tmp_path / "strips.png", RESULTS, {"least": strip, "most": strip})
    plain, with_strips = (pixels(tmp_path / f"{name}.png") for name in ("plot", "strips"))
    assert plain.std() > 10 and with_strips.shape[0] > plain.shape[0]
    assert n_colours(tmp_path / "plot.png") > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.png", "strips.png"]


def test_budgets_are_one_line_whatever_their_order(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    dear = replace(RESULTS, accuracy=0.905, accuracy_interval=(0.885, 0.925), macs_cut=0.3)
    budgets = [RESULTS, dear, replace(RESULTS, accuracy=0.7, accuracy_interval=(0.68, 0.72), macs_cut=0.8)]
    for name, order in (("one", budgets[:1]), ("three", budgets), ("turned", budgets[::-1])):
        budgets_plot(tmp_path / f"{name}.png", recipe(*order))
    one, three, turned = (pixels(tmp_path / f"{name}.png") for name in ("one", "three", "turned"))
    assert (three.shape == turned.shape) and (three == turned).all()
    assert one.shape != three.shape or (one != three).any()
    assert n_colours(tmp_path / "three.png") > 100
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("accuracy", "interval"), [(1.0, wilson_interval(3, 3)), (0.0, (1e-17, 0.1))])
def test_an_interval_that_rounding_leaves_a_hair_beside_the_accuracy_is_drawn(
    tmp_path: Path, accuracy: float, interval: Interval
) -> None:
    pytest.importorskip("matplotlib")
    assert not interval[0] <= accuracy <= interval[1]
    extreme = replace(RESULTS, accuracy=accuracy, accuracy_interval=interval)
    budgets_plot(tmp_path / "budgets.png", recipe(extreme, RESULTS))
    frontier_plot(tmp_path / "frontier.png", extreme, {})
    assert len(list(tmp_path.iterdir())) == 2


def row(method: str, macs_share: float, accuracy: float, **change: Any) -> ComparisonRow:
    found = ComparisonRow(
        method=method,
        label="",
        accuracy=accuracy,
        accuracy_interval=(accuracy - 0.01, accuracy + 0.01),
        macs_share=macs_share,
        decision_share=0.0,
        saves_time=True,
        ms={1: 1.0},
    )
    return replace(found, **change)


def compared(*rows: ComparisonRow) -> ComparisonResult:
    dense = row("uniform", 1.0, 0.9)
    return ComparisonResult(rows=rows, dense=dense, at_equal_macs=(), n_images=100, conditions=CONDITIONS)


def test_a_rival_far_below_does_not_hide_what_tells_the_others_apart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [row("rl progressive", 0.5, 0.9), row("threshold", 0.4, 0.89), row("static", 0.6, 0.88)]
    compare_plot(tmp_path / "near.png", compared(*rows))
    for name, far in (("far", 0.2), ("farther", 0.1)):
        compare_plot(tmp_path / f"{name}.png", compared(*rows, row("threshold", 0.01, far)))
    near, far_off, farther = (pixels(tmp_path / f"{name}.png") for name in ("near", "far", "farther"))
    differs = (far_off != farther).any(-1).mean()
    assert (near.shape, far_off.shape) == (farther.shape, farther.shape) and 0 < differs < 0.01  # a note below alone


def test_what_saves_no_time_is_said(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [row("rl once", 0.5, 0.9), row("gates", 0.4, 0.89)]
    compare_plot(tmp_path / "saves.png", compared(*rows))
    compare_plot(tmp_path / "hides.png", compared(rows[0], replace(rows[1], saves_time=False)))
    saves, hides = (pixels(tmp_path / f"{name}.png") for name in ("saves", "hides"))
    assert saves.shape == hides.shape and (saves != hides).any()


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"'matplotlib', which is not installed; .*rlprune\[plots\]"
    with pytest.raises(MissingExtraError, match=message):
        frontier_plot(tmp_path / "plot.png", RESULTS, {})
    with pytest.raises(MissingExtraError, match=message):
        budgets_plot(tmp_path / "plot.png", recipe(RESULTS))
    with pytest.raises(MissingExtraError, match=message):
        compare_plot(tmp_path / "plot.png", compared(row("static", 0.5, 0.9)))
    assert not list(tmp_path.iterdir())
