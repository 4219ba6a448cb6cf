"""From a time limit to epochs, batches and all else, by the rules that the module writes down."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from rlprune.errors import RLPruneError, SettingsError
from rlprune.optimization.entry.pricing import draws
from rlprune.optimization.pace import Pace
from rlprune.optimization.plan import (
    FEWEST_CANDIDATES,
    MOST_EPOCHS,
    SCARCE,
    SLICES_IN_USE,
    USED,
    Plan,
    PlanOptions,
    Size,
    make_plan,
    profile_epochs_within,
)

PACE = Pace(forward=0.001, adapt=0.006, narrowest=0.1)
"""A millisecond an image; a step of three slices beside the whole network takes six."""
SIZE = Size(n_network=4000, n_policy=800, n_validation=800, n_test=1000, side=96, trained=True, mirrored=True)


def plan_of(minutes: float = 60, size: Size = SIZE, pace: Pace = PACE, **given: Any) -> Plan:
    return make_plan(PlanOptions(**given), size, pace, minutes)


@pytest.mark.parametrize("minutes", [7, 10, 20, 60, 300])
@pytest.mark.parametrize("trained", [True, False])
def test_what_is_planned_takes_no_longer_than_its_share_of_the_limit(minutes: float, trained: bool) -> None:
    plan = plan_of(minutes, replace(SIZE, trained=trained))
    assert plan.total <= 60 * USED * minutes + 1e-6
    assert plan.profile_epochs >= 1
    assert (plan.pretrain_epochs == 0) == trained


def test_more_time_never_means_fewer_epochs_in_all() -> None:
    plans = [plan_of(minutes) for minutes in range(8, 120, 4)]
    epochs = [plan.slice_epochs + plan.profile_epochs for plan in plans if plan.slice_epochs]
    assert epochs == sorted(epochs)
    assert max(epochs) == 2 * MOST_EPOCHS


def test_little_time_goes_to_the_slices_in_use_alone() -> None:
    scarce, ample = plan_of(6), plan_of(60)
    assert (scarce.slice_epochs, scarce.n_random) == (0, 1)
    assert scarce.profile_epochs >= 1
    assert "training slices" not in scarce.seconds
    assert ample.slice_epochs + ample.profile_epochs >= SCARCE and ample.n_random == 2


def test_resolutions_are_trained_alone_until_there_is_time_for_more_than_enough() -> None:
    for minutes, ample in ((20, False), (60, False), (600, True)):
        plan = plan_of(minutes, replace(SIZE, resolution=True), Pace(forward=0.004, adapt=0.1, narrowest=0.1))
        assert (plan.slice_epochs > 0, plan.separate) == (ample, not ample)


def test_a_network_of_random_weights_is_trained_first() -> None:
    plan = plan_of(size=replace(SIZE, trained=False))
    assert 1 <= plan.pretrain_epochs <= MOST_EPOCHS
    assert plan.seconds["training the network"] == pytest.approx(plan.pretrain_epochs * SIZE.n_network * PACE.train)
    assert "training the network" not in plan_of().seconds


def test_a_search_that_is_left_out_takes_no_number() -> None:
    with pytest.raises(RLPruneError, match=r"n_candidates=32: the time is too short for a search"):
        plan_of(6, n_candidates=32)
    with pytest.raises(SettingsError, match=r"n_candidates=32: with slice_epochs=0 none are searched"):
        PlanOptions(n_candidates=32, slice_epochs=0)


def test_time_that_has_gone_is_no_longer_planned_with() -> None:
    late = make_plan(PlanOptions(), SIZE, PACE, 20, spent=600)
    assert late.seconds["looking at the network"] == 600
    assert late.total <= 60 * USED * 20
    assert late.slice_epochs + late.profile_epochs < plan_of(20).slice_epochs + plan_of(20).profile_epochs


def test_what_is_measured_on_the_processor_takes_its_time() -> None:
    slow = plan_of(pace=replace(PACE, forward_here=0.01)).seconds
    for name in ("measuring", "choosing", "searching slices", "learning to decide"):
        assert (slow[name] > plan_of().seconds[name]) == (name in ("measuring", "choosing"))


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("pace", [PACE, Pace(0.02, 0.2, 0.5), Pace(1e-5, 5e-5, 0.01)])
def test_the_number_in_the_message_would_do(trained: bool, pace: Pace) -> None:
    size = replace(SIZE, trained=trained)
    with pytest.raises(RLPruneError, match=r"time_limit=0.01 minutes: not one epoch .* give \d+ or more") as caught:
        plan_of(0.01, size, pace)
    enough = int(re.findall(r"give (\d+)", str(caught.value))[0])
    assert plan_of(enough, size, pace).profile_epochs >= 1
    if enough > 1:
        with pytest.raises(RLPruneError, match="time_limit"):
            plan_of(enough - 1, size, pace)


def test_epochs_that_are_given_need_no_limit() -> None:
    assert plan_of(0.01, slice_epochs=0, profile_epochs=2).profile_epochs == 2
    plan = plan_of(0.01, replace(SIZE, trained=False), pretrain_epochs=1, slice_epochs=1, profile_epochs=3)
    assert (plan.pretrain_epochs, plan.slice_epochs, plan.profile_epochs) == (1, 1, 3)


GIVEN: dict[str, Any] = {
    "pretrain_epochs": 3,
    "slice_epochs": 5,
    "profile_epochs": 7,
    "batch_size": 24,
    "learning_rate": 0.003,
    "flip": "no",
    "padding": 0,
    "views": 3,
    "n_profiles": 2,
    "n_candidates": 17,
    "max_passes": 3,
    "policy_steps": 1234,
    "penalties": (0.01, 0.4),
    "pool": 1,
    "residual": "yes",
    "resolution": "yes",
}
UNPLANNED = ("residual", "resolution")
"""Options that say what the network becomes, not what is done with it."""


def test_every_option_can_be_set() -> None:
    assert {field.name for field in fields(PlanOptions)} == set(GIVEN)
    plan = plan_of(size=replace(SIZE, trained=False), **GIVEN)
    wanted = GIVEN | {"flip": False}
    assert {name: getattr(plan, name) for name in wanted if name not in UNPLANNED} == {
        name: value for name, value in wanted.items() if name not in UNPLANNED
    }


@pytest.mark.parametrize(("name", "value"), [each for each in GIVEN.items() if each[0] not in ("flip", *UNPLANNED)])
def test_an_option_leaves_the_rules_for_the_others(name: str, value: Any) -> None:
    size = replace(SIZE, trained=False)
    assert getattr(plan_of(size=size), name) != value
    assert getattr(plan_of(size=size, **{name: value}), name) == value


def test_penalties_have_to_ascend() -> None:
    with pytest.raises(SettingsError, match=r"penalties=\(0.2, 0.2\): give two numbers"):
        PlanOptions(penalties=(0.2, 0.2))


def test_few_images_mean_fewer_profiles_and_smaller_batches() -> None:
    few = replace(SIZE, n_network=432, n_policy=144, n_validation=144, n_test=180)
    assert (plan_of(size=few).n_profiles, plan_of().n_profiles) == (3, 4)
    assert plan_of(5, few).batch_size == 32 and plan_of(120, replace(SIZE, n_network=40_000)).batch_size == 128
    assert plan_of(5, replace(few, n_network=10)).batch_size == 10
    assert plan_of(5, few).learning_rate == pytest.approx(0.05 * 32 / 128)
    resolved = replace(few, resolution=True)
    apart, shared = plan_of(5, resolved, slice_epochs=0), plan_of(5, resolved, slice_epochs=1)
    assert (apart.separate, apart.learning_rate) == (True, pytest.approx(0.01 * 32 / 128))
    assert (shared.separate, shared.learning_rate) == (False, pytest.approx(0.05 * 32 / 128))
    assert apart.seconds[SLICES_IN_USE] == pytest.approx(apart.profile_epochs * few.n_network * PACE.static(0.4))


def test_slices_with_weights_of_their_own_are_trained_one_at_a_time() -> None:
    resolved = plan_of(5, replace(SIZE, resolution=True), slice_epochs=0)
    alone = {"n_random": 1, "sandwich": False, "separate": True}
    assert draws(resolved, 4) == alone | {"shares": (1.0, 0.5, 0.25, 0.0)}
    assert draws(plan_of(), 4) == {"n_random": 2, "shares": (0.0, 1.0, 1.0, 0.0)}
    assert draws(plan_of(), 2) == {"n_random": 2, "shares": (1.0, 1.0)}


def test_images_that_lose_when_mirrored_are_not() -> None:
    assert plan_of(size=replace(SIZE, mirrored=False)).flip is False
    assert plan_of(size=replace(SIZE, mirrored=False), flip="yes").flip is True


def test_kept_views_are_for_many_epochs_and_features_for_many_images() -> None:
    assert plan_of().views == 8 and plan_of(5).views == 0
    assert plan_of().pool == 0 and plan_of(size=replace(SIZE, n_policy=5000)).pool == 2


def test_a_fast_network_is_searched_more() -> None:
    assert plan_of(pace=Pace(0.0001, 0.001, 0.1)).n_candidates == 64
    assert plan_of(300, pace=Pace(0.1, 0.4, 0.1)).n_candidates == FEWEST_CANDIDATES


def test_where_training_was_slower_than_thought_fewer_epochs_are_left() -> None:
    plan = plan_of()
    left = 60.0 * 15
    expected = PACE.slices(2)
    assert profile_epochs_within(plan, SIZE, expected, PACE, left) == plan.profile_epochs
    slower = profile_epochs_within(plan, SIZE, 3 * expected, PACE, left)
    assert 1 <= slower < plan.profile_epochs
    assert SIZE.n_network * slower * 3 * (expected + PACE.static(0.5)) <= left
    assert profile_epochs_within(plan, SIZE, 3 * expected, PACE, -5.0) == 1


def test_figures_are_numbers_for_the_report() -> None:
    figures = plan_of().figures()
    assert all(isinstance(value, float) for value in figures.values())
    assert {"slice_epochs", "profile_epochs", "lowest_penalty", "highest_penalty"} <= figures.keys()


def test_a_step_counts_its_slices() -> None:
    assert PACE.train == pytest.approx(PACE.adapt / (1 / 3 + 1.1 + 2 * 0.55))
    assert PACE.slices(2) == pytest.approx(PACE.adapt)
    assert PACE.slices(1) < PACE.slices(2)
    assert PACE.static(0.5) == pytest.approx((1 / 3 + 0.5) * PACE.train)
