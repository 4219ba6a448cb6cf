"""Controllers that hold a mean cost over a stream of images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranged import DATA, DYNAMIC
from torch import Tensor

from rlprune import DynamicCNN
from rlprune.deployment.controller import Controller
from rlprune.errors import RLPruneError


def drifting(n: int) -> Tensor:
    """A stream of n images whose share of dear ones doubles half-way."""
    dearness = DYNAMIC(DATA.images, penalty=0.1).macs
    cheap, dear = DATA.images[dearness == dearness.min()], DATA.images[dearness > dearness.min()]
    rng = torch.Generator().manual_seed(0)
    parts = []
    for share in (0.3, 0.6):
        is_dear = torch.rand(n // 2, generator=rng) < share
        draws = [part[torch.randint(len(part), (n // 2,), generator=rng)] for part in (cheap, dear)]
        parts.append(torch.where(is_dear[:, None, None, None], draws[1], draws[0]))
    return torch.cat(parts)


@pytest.mark.parametrize(("batch", "n", "horizon"), [(1, 2000, 60), (16, 6000, 200), (100, 6000, 200)])
def test_a_controller_holds_its_target_over_a_stream_that_becomes_harder(batch: int, n: int, horizon: int) -> None:
    stream, target = drifting(n), 0.45
    controller, costs = Controller(DYNAMIC, macs=target, horizon=horizon), []
    for images in stream.split(batch):
        costs.append(controller(images).macs.double() / DYNAMIC.prices.dense.macs)
    held, all_costs = controller.held, torch.cat(costs)
    assert held.n_images == len(stream) and held.target == target and not held.at_limit
    assert held.mean == pytest.approx(float(all_costs.mean()), rel=1e-9)
    assert held.mean == pytest.approx(target, rel=0.03)
    uncontrolled = DYNAMIC(stream, budget=target).macs.double() / DYNAMIC.prices.dense.macs
    assert float(uncontrolled[len(stream) // 2 :].mean()) > 1.06 * target


def test_a_controller_of_time_spends_less_on_a_slower_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, per_share = [0.0], [4.0]
    monkeypatch.setattr("rlprune.deployment.controller.time.perf_counter", lambda: clock[0])
    controller, run = Controller(DYNAMIC, milliseconds=2.0, horizon=100), DynamicCNN.__call__

    def slow(self: DynamicCNN, images: Tensor, **more: Any) -> Any:
        prediction = run(self, images, **more)
        clock[0] += per_share[0] / 1000 * float(prediction.macs.double().sum() / self.prices.dense.macs)
        return prediction

    monkeypatch.setattr(DynamicCNN, "__call__", slow)
    budgets = []
    for milliseconds in (4.0, 6.0):
        per_share[0] = milliseconds
        for _ in range(60):
            controller(DATA.images)
        budgets.append(controller.held.budget)
    assert controller.held.mean == pytest.approx(2.0, rel=0.03)
    assert budgets[0] == pytest.approx(0.5, rel=0.15) and budgets[1] < budgets[0]


@pytest.mark.parametrize("batch", [1600, 5000])
def test_it_does_not_swing_where_calls_are_longer_than_the_horizon(batch: int) -> None:
    stream, budgets = drifting(40_000)[:20_000], []
    controller = Controller(DYNAMIC, macs=0.45, horizon=500)
    for images in stream.split(batch):
        controller(images)
        budgets.append(controller.held.budget)
    assert max(budgets) - min(budgets) < 0.1
    assert controller.held.mean == pytest.approx(0.45, rel=0.03)


def test_what_was_spent_too_much_where_nothing_could_be_moved_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pace, run = [0.0], [20.0], DynamicCNN.__call__
    monkeypatch.setattr("rlprune.deployment.controller.time.perf_counter", lambda: clock[0])

    def slow(self: DynamicCNN, images: Tensor, **more: Any) -> Any:
        prediction = run(self, images, **more)
        clock[0] += pace[0] / 1000 * float(prediction.macs.double().sum() / self.prices.dense.macs)
        return prediction

    monkeypatch.setattr(DynamicCNN, "__call__", slow)
    controller = Controller(DYNAMIC, milliseconds=2.0, horizon=100)
    pace[0] = 5000.0  # the first call, which prepares things
    controller(DATA.images)
    assert controller.held.n_images == 0
    pace[0] = 20.0
    for _ in range(20):
        controller(DATA.images)
    assert controller.held.at_limit and controller.held.mean > 2.5
    pace[0] = 4.0
    for _ in range(200):
        controller(DATA.images)
    assert not controller.held.at_limit
    assert controller.held.mean == pytest.approx(2.0, rel=0.03)


def test_a_target_out_of_reach_is_told() -> None:
    controller = Controller(DYNAMIC, milliseconds=1e-6)
    for _ in range(20):
        controller(DATA.images)
    assert controller.held.at_limit and controller.held.budget == DYNAMIC.source_policy.limits[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither macs nor milliseconds is given: give one of them"),
        ({"macs": 0.4, "milliseconds": 1.0}, r"macs is 0\.4 and milliseconds is 1\.0: give only one of them"),
        ({"macs": 0.01}, r"macs is 0\.01; with this policy images can cost 0\.\d+ to "),
        ({"macs": 0.0}, r"macs is 0\.0; a number above 0 is needed"),
        ({"milliseconds": -1.0}, r"milliseconds is -1\.0; a number above 0 is needed"),
        ({"macs": 0.4, "horizon": 0}, "horizon is 0; 1 or more images are needed"),
        ({"macs": 0.4, "every": 0}, "every is 0; 1 or more images are needed"),
    ],
)
def test_controllers_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        Controller(DYNAMIC, **options)
