"""Controllers that let each frame be done in time, on a clock that only the network's work moves."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nets import make_data, make_elastic, make_levels, make_policy
from ranged import DYNAMIC as RANGED
from torch import Tensor

from rlprune import DynamicCNN
from rlprune.deployment.controller import Controller
from rlprune.deployment.deadline import Pace
from rlprune.errors import RLPruneError
from rlprune.policies.loop import run_policy
from rlprune.policies.one_image import SingleImagePolicy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

ELASTIC, DATA = make_elastic("residual"), make_data(64)
BOOK = sorted_codebook(make_levels(ELASTIC, 4), Cost(ELASTIC))
POLICY = make_policy(ELASTIC, DATA, BOOK, max_passes=3)
DYNAMIC = DynamicCNN(ELASTIC, POLICY, DATA.mean, DATA.std, DATA.classes)
STEM, BODIES = 1.0, (2.0, 4.0, 8.0, 20.0)
"""Milliseconds of one image."""


class Machine:
    """A clock, how much slower than usual the machine is, and how much its times vary."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slower = 1.0
        self.jitter = 0.0
        self._random = np.random.default_rng(0)

    def work(self, ms: float) -> None:
        self.now += ms * self.slower * math.exp(self.jitter * self._random.standard_normal()) / 1000


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made, run, normalise = Machine(), DynamicCNN.run_body, DynamicCNN.normalise

    def slow_run(self: DynamicCNN, profile: int, features: Tensor) -> Tensor:
        made.work(len(features) * BODIES[profile])
        return run(self, profile, features)

    def slow_stem(self: DynamicCNN, images: Tensor) -> Tensor:
        made.work(len(images) * STEM)
        return normalise(self, images)

    monkeypatch.setattr("rlprune.deployment.deadline.time.perf_counter", lambda: made.now)
    monkeypatch.setattr(DynamicCNN, "run_body", slow_run)
    monkeypatch.setattr(DynamicCNN, "normalise", slow_stem)
    return made


def stream(controller: Controller, n: int) -> Tensor:
    """The profiles of n frames, one by one, int64 (n, max_passes)."""
    return torch.cat([controller(DATA.images[i % len(DATA)][None]).profiles for i in range(n)])


def ms_of(profiles: Tensor) -> Tensor:
    return STEM + (torch.tensor(BODIES)[profiles] * (profiles >= 0)).sum(1)


def test_with_time_enough_everything_is_as_without_a_deadline(machine: Machine) -> None:
    controller = Controller(DYNAMIC, deadline=500.0)
    assert torch.equal(stream(controller, 64), torch.cat([DYNAMIC(image[None]).profiles for image in DATA.images]))
    held = controller.held
    assert (held.missed, held.limited, held.at_limit, held.n_images) == (0.0, 0.0, False, 64)
    assert held.target is None and held.budget is None and held.mean > STEM + BODIES[0]


@pytest.mark.parametrize("deadline", [6.0, 10.0, 15.0, 20.5])
def test_what_would_be_late_is_replaced_by_the_most_expensive_that_is_not(machine: Machine, deadline: float) -> None:
    free = torch.cat([DYNAMIC(image[None]).profiles for image in DATA.images])
    profiles = stream(controller := Controller(DYNAMIC, deadline=deadline), 64)
    assert bool((ms_of(profiles) <= deadline).all()) and controller.held.missed == 0
    fits = [profile for profile, ms in enumerate(BODIES) if STEM + ms <= deadline]
    assert torch.equal(profiles[:, 0], free[:, 0].clamp_max(max(fits)))
    alike = ms_of(free) <= deadline
    assert torch.equal(profiles[alike], free[alike])
    assert controller.held.limited == float((profiles != free).any(1).double().mean()) > 0


@pytest.mark.parametrize("quantile", [0.8, 0.95, 0.99])
def test_it_is_in_time_as_often_as_asked_where_times_vary(machine: Machine, quantile: float) -> None:
    machine.jitter = 0.25
    controller = Controller(DYNAMIC, deadline=12.0, quantile=quantile)
    profiles = stream(controller, 600)
    assert controller.held.missed <= 1 - quantile + 0.02
    assert float((profiles[:, 0] >= 2).double().mean()) > 0 or quantile == 0.99  # 8 ms on average


def test_it_follows_a_machine_that_slows_down_and_recovers(machine: Machine) -> None:
    controller = Controller(DYNAMIC, deadline=25.0)
    before = stream(controller, 64)
    machine.slower = 2.5
    slow = [controller(DATA.images[i % 64][None]) for i in range(200)]
    assert controller.held.missed * 264 <= 10
    assert max(float(ms_of(each.profiles)) for each in slow[20:]) * 2.5 <= 25.0
    machine.slower = 1.0
    stream(controller, 256)
    assert torch.equal(stream(controller, 64), before)
    assert controller.held.missed * 584 <= 10


def test_a_deadline_that_nothing_meets_is_told(machine: Machine) -> None:
    controller = Controller(DYNAMIC, deadline=0.5)
    profiles = stream(controller, 20)
    assert profiles.tolist() == [[0, -1, -1]] * 20
    held = controller.held
    assert (held.missed, held.limited > 0, held.at_limit) == (1.0, True, True)


@pytest.mark.parametrize("n", [3, 20, 64])
def test_a_batch_shares_its_time(machine: Machine, n: int) -> None:
    controller = Controller(DYNAMIC, deadline=n * 7.7)
    for start in range(0, 64, n):
        before = machine.now
        found = controller(DATA.images[start : start + n])
        assert 1000 * (machine.now - before) <= n * 7.7
        assert torch.equal(found.macs, DYNAMIC.prices.of_passes(found.profiles).macs)
    assert controller.held.missed == 0


def test_deadlines_change_from_call_to_call(machine: Machine) -> None:
    controller, image = Controller(RANGED, macs=0.9, every=1000), DATA.images[:1]
    assert math.isnan(controller.held.missed) and math.isnan(controller.held.limited)
    free = RANGED(DATA.images, budget=0.9)
    dear = DATA.images[free.profiles[:, 0] == 2][:1]
    assert controller(dear).profiles.tolist() == [[2]]
    assert controller(dear, deadline=6.0).profiles.tolist() == [[1]]
    assert controller(dear, deadline=20.0).profiles.tolist() == [[2]]
    assert controller(image, deadline=0.1).profiles.tolist() == [[0]]
    held = controller.held
    assert (held.n_images, held.missed, held.target) == (4, pytest.approx(1 / 3), 0.9)


def test_a_mean_and_a_deadline_are_held_together(machine: Machine) -> None:
    controller = Controller(RANGED, macs=0.45, deadline=6.0, horizon=60)
    for start in range(500):
        controller(DATA.images[start % 64][None])
    assert controller.held.mean <= 0.46 and controller.held.missed == 0
    again = pickle.loads(pickle.dumps(controller))
    assert again.held == controller.held and again(DATA.images[:1]).profiles.shape == (1, 1)


@pytest.mark.parametrize("cap", [0, 1, 2])
@pytest.mark.parametrize("combine", [0.0, 0.5])
def test_one_image_is_limited_as_it_is_among_others(cap: int, combine: float) -> None:
    policy = make_policy(ELASTIC, DATA, BOOK, max_passes=3, combine=combine)
    dynamic = DynamicCNN(ELASTIC, policy, DATA.mean, DATA.std, DATA.classes)

    def limit(n_pass: int, profile: int, before: int, n_images: int, n_waiting: int) -> int:
        return profile if profile <= cap else cap if n_pass == 0 else -1

    together = dynamic.limited(limit)(DATA.images)
    alone = [dynamic.limited(limit)(image[None]) for image in DATA.images]
    assert torch.equal(together.profiles, torch.cat([each.profiles for each in alone]))
    assert torch.allclose(together.probabilities, torch.cat([each.probabilities for each in alone]), atol=1e-5)
    assert int(together.profiles.max()) <= cap < 3


@torch.no_grad()
def test_a_limit_that_permits_everything_changes_nothing() -> None:
    asked: list[tuple[int, ...]] = []

    def limit(*about: int) -> int:
        asked.append(about)
        return about[1]

    features = POLICY.observer.features(DYNAMIC.slices.stem(DYNAMIC.normalise(DATA.images)).float())
    run: Callable[[Tensor, int], Tensor] = lambda bucket, profile: DATA.images[bucket, 0, 0, :5].float() * profile  # noqa: E731
    free = run_policy(POLICY, features, DYNAMIC.prices, run)
    limited = run_policy(POLICY, features, DYNAMIC.prices, run, limit=limit)
    assert torch.equal(free.profiles, limited.profiles) and torch.equal(free.logits, limited.logits)
    assert sum(n for n_pass, _, _, n, _ in asked if n_pass == 0) == len(DATA) == asked[0][-1]
    one = SingleImagePolicy(POLICY, DYNAMIC.prices, None)
    assert torch.equal(one.run(features[:1], run, limit).profiles, one.run(features[:1], run).profiles)


def test_a_pace_knows_what_did_not_run_by_what_did() -> None:
    pace = Pace([1.0, 10.0])
    assert pace.expected(1, 1, 0.95) == 10.0 and pace.expected(1, 4, 0.95) == 40.0
    for _ in range(50):
        pace.note(0, 1, 3.0)
    assert pace.expected(1, 1, 0.95) == pytest.approx(30.0, rel=0.2)
    for _ in range(300):
        pace.note(0, 1, 1.0)
    assert pace.expected(1, 1, 0.95) == pytest.approx(10.0, rel=0.2)
    pace.note(1, 8, 40.0)  # together they are faster
    assert pace.expected(1, 8, 0.5) == pytest.approx(40.0, rel=0.1)
    assert pace.expected(1, 1, 0.5) == pytest.approx(10.0, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline": 0.0}, r"deadline is 0\.0; a number above 0 is needed"),
        ({"deadline": -3}, "deadline is -3; a number above 0"),
        ({"deadline": math.nan}, "deadline is nan; a number above 0"),
        ({"deadline": math.inf}, "deadline is inf; a number above 0"),
        ({"deadline": "33"}, "deadline is '33'; a number above 0"),
        ({"deadline": True}, "deadline is True; a number above 0"),
        ({"deadline": 5.0, "quantile": 1.0}, r"quantile is 1\.0; a number above 0 and below 1 is needed"),
        ({"deadline": 5.0, "quantile": 95}, "quantile is 95; a number above 0 and below 1"),
        ({"deadline": 5.0, "macs": 0.4}, "this policy knows no budgets: it was trained for a single penalty"),
        ({"deadline": 5.0, "milliseconds": 3.0, "macs": 0.4}, "give only one of them"),
    ],
)
def test_deadlines_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        Controller(DYNAMIC, **options)
    with pytest.raises(RLPruneError, match="a controller needs a DynamicCNN, such as"):
        Controller("bundle", deadline=3.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("deadline", [0, -1.0, math.nan, "5"])
def test_deadlines_of_a_call_that_cannot_be(machine: Machine, deadline: Any) -> None:
    controller = Controller(DYNAMIC, deadline=50.0)
    with pytest.raises(RLPruneError, match=r"deadline is .*; a number above 0 is needed"):
        controller(DATA.images[:1], deadline=deadline)
    assert controller.held.n_images == 0
