from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlprune.errors import MissingExtraError
from rlprune.evaluation.plots import (
    budgets_plot,
    frontier_plot,
    growth_plot,
    one_policy_plot,
    speed_plot,
    spending_strip,
)
from rlprune.metrics import wilson_interval

SPEED: dict[str, Any] = {
    "macs_ratio": {"1": 2.5, "64": 2.5},
    "speedup": {"dynamic": {"1": 1.5, "64": 2.0}, "dynamic onnxruntime": {"1": None, "64": 2.2}},
}
GREEN, RED = (46, 125, 50), (198, 40, 40)
RESULTS: dict[str, Any] = {
    "accuracy": 0.9,
    "accuracy_interval": (0.88, 0.92),
    "dense_accuracy": 0.91,
    "macs_cut": 0.5,
    "controls": {"uniform": 0.8, "random": 0.6, "best_static": 0.85, "shuffled": 0.87},
    "controls_macs_cut": {"uniform": 0.5, "random": 0.5, "best_static": 0.5, "shuffled": 0.5},
    "frontier": {
        "uniform": [(0.1, 0.5), (1.0, 0.91)],
        "static": [(0.1, 0.6), (0.5, 0.85), (1.0, 0.91)],
        "codebook": [(0.2, 0.7), (1.0, 0.91)],
    },
}


def images(n: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_bars_are_as_wide_as_the_share_that_was_spent() -> None:
    shares = torch.tensor([0.0, 0.25, 1.0, 2.5])
    strip = spending_strip(images(4), shares, torch.tensor([True, False, True, False]))
    for i, (share, colour) in enumerate(zip(shares.tolist(), (GREEN, RED, GREEN, RED), strict=True)):
        tile = strip[104, 100 * i : 100 * (i + 1)]
        assert (tile == colour).all(-1).sum() == round(min(share, 1) * 95) + 1
    assert strip.shape == (112, 400, 3) and strip.dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 3])
def test_the_images_are_shown_enlarged(channels: int) -> None:
    shown = images(2, channels)
    strip = spending_strip(shown, torch.zeros(2), torch.ones(2, dtype=torch.bool))
    for i in range(2):
        tile = strip[2:98, 100 * i + 2 : 100 * i + 98]
        centres = torch.from_numpy(tile[6::12, 6::12].copy()).permute(2, 0, 1)
        assert torch.equal(centres, shown[i].expand(3, -1, -1))


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    strip = spending_strip(images(3), torch.full((3,), 0.5), torch.ones(3, dtype=torch.bool))
    frontier_plot(tmp_path / "plot.png", RESULTS, {})
    frontier_plot(tmp_path / "strips.png", RESULTS, {"least": strip, "most": strip})
    plain, with_strips = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("plot", "strips"))
    assert plain.std() > 10 and with_strips.shape[0] > plain.shape[0]
    assert len(np.unique(plain.reshape(-1, plain.shape[-1]), axis=0)) > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.png", "strips.png"]


def test_budgets_are_one_line_whatever_their_order(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    dear = {"accuracy": 0.905, "accuracy_interval": (0.885, 0.925), "macs_cut": 0.3}
    budgets = [RESULTS, RESULTS | dear, RESULTS | {"accuracy": 0.7, "accuracy_interval": (0.68, 0.72), "macs_cut": 0.8}]
    for name, order in (("one", budgets[:1]), ("three", budgets), ("turned", budgets[::-1])):
        budgets_plot(tmp_path / f"{name}.png", order)
    one, three, turned = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("one", "three", "turned"))
    assert one.shape == three.shape and (three == turned).all() and (one != three).any()
    assert len(np.unique(three.reshape(-1, three.shape[-1]), axis=0)) > 100
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("accuracy", "interval"), [(1.0, wilson_interval(3, 3)), (0.0, (1e-17, 0.1))])
def test_an_interval_that_rounding_leaves_a_hair_beside_the_accuracy_is_drawn(
    tmp_path: Path, accuracy: float, interval: tuple[float, float]
) -> None:
    pytest.importorskip("matplotlib")
    assert not interval[0] <= accuracy <= interval[1]
    extreme = RESULTS | {"accuracy": accuracy, "accuracy_interval": interval}
    budgets_plot(tmp_path / "budgets.png", [extreme, RESULTS])
    frontier_plot(tmp_path / "frontier.png", extreme, {})
    assert len(list(tmp_path.iterdir())) == 2


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"'matplotlib', which is not installed; .*rlprune\[plots\]"):
        frontier_plot(tmp_path / "plot.png", RESULTS, {})
    with pytest.raises(MissingExtraError, match=r"'matplotlib', which is not installed; .*rlprune\[plots\]"):
        budgets_plot(tmp_path / "plot.png", [RESULTS])
    with pytest.raises(MissingExtraError, match=r"'matplotlib', which is not installed; .*rlprune\[plots\]"):
        speed_plot(tmp_path / "plot.png", {"net": SPEED})
    assert not list(tmp_path.iterdir())


def test_one_policy_is_drawn_beside_many(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {
            "alone": {"accuracy": share, "macs_share": share},
            "one_at_that_budget": {"accuracy": 0.9, "macs_share": share},
        }
        for share in (0.3, 0.5, 0.4)
    ]
    for name, order in (("some", rows), ("turned", rows[::-1])):
        one_policy_plot(tmp_path / f"{name}.png", order)
    some, turned = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("some", "turned"))
    assert (some == turned).all() and len(np.unique(some.reshape(-1, some.shape[-1]), axis=0)) > 100


def test_every_dynamic_row_of_every_network_is_a_point(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    speed_plot(tmp_path / "one.png", {"net": SPEED})
    speed_plot(tmp_path / "two.png", {"net": SPEED, "other": SPEED | {"macs_ratio": {"1": 3.0, "64": 4.0}}})
    one, two = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("one", "two"))
    assert one.shape == two.shape and (one != two).any()
    assert len(np.unique(one.reshape(-1, one.shape[-1]), axis=0)) > 100


def test_growth_is_a_page_of_charts_of_one_unit_each(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = {
        "batch": [{"batch": n, "dense": 1.0, "dynamic": 0.5, "peak_mb": 300.0 + n} for n in (1, 64)],
        "profiles": [{"profiles": n, "prepare_s": 0.1 * n, "run_64_s": 0.05, "held": 0.4 * n} for n in (2, 4)],
        "groups": [{"groups": n, "find_s": 0.05 * n, "slice_s": 0.01 * n, "price_256_s": 0.001} for n in (9, 27)],
        "resnet50": {"find": 1.0, "slice": 0.2},
    }
    growth_plot(tmp_path / "once.png", results)
    results["batch"][0]["peak_mb"] *= 2
    growth_plot(tmp_path / "more.png", results)
    once, more = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("once", "more"))
    assert once.shape == more.shape and (once != more).any()
