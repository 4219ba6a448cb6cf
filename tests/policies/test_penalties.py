"""Policies for a range of penalties: at one of them, at a budget, from call to call."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranged import BOOK, DATA, DYNAMIC, KNOWN, NETWORK, RANGE, make_ranged

from rlprune import DynamicCNN, load, save_bundle
from rlprune.deployment.controller import Controller
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import to_onnx
from rlprune.errors import BundleError, RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange, check_budgets, monotone_budgets, penalty_for
from rlprune.policies.policy import Policy

NAN = float("nan")


@given(st.floats(0, 1))
def test_places_and_penalties_are_each_other_s_inverse(place: float) -> None:
    penalty = RANGE.at(torch.tensor(place, dtype=torch.float64))
    assert 0.01 <= float(penalty) <= 1.0 + 1e-12
    assert float(RANGE.place(penalty)) == pytest.approx(place, abs=1e-9)


@pytest.mark.parametrize(("budget", "penalty"), [(0.9, 0.01), (0.5, 0.1), (0.2, 1.0), (0.7, 10**-1.5)])
def test_budgets_between_those_measured_are_interpolated(budget: float, penalty: float) -> None:
    assert penalty_for(budget, KNOWN) == pytest.approx(penalty)
    assert torch.equal(monotone_budgets(KNOWN.flip(0)), KNOWN)


def test_noise_in_what_was_measured_is_ironed_out() -> None:
    known = monotone_budgets(torch.tensor([[0.01, 0.6], [0.1, 0.7], [1.0, 0.2]], dtype=torch.float64))
    assert known.tolist() == [[0.01, 0.7], [0.1, 0.7], [1.0, 0.2]]
    penalties = [penalty_for(budget, known) for budget in (0.2, 0.3, 0.6, 0.65, 0.7)]
    assert penalties == sorted(penalties, reverse=True)


@pytest.mark.parametrize("ends", [(0.01, 0.1), (0.03, 0.3), (0.03, 0.6), (0.001, 0.1), (0.07, 0.9)])
def test_the_least_and_the_most_can_be_asked_for_whatever_the_ends(ends: tuple[float, float]) -> None:
    penalties = PenaltyRange.of(ends)
    places = torch.linspace(0, 1, 17, dtype=torch.float64)
    known = torch.stack([penalties.at(places), 0.9 - 0.6 * places], 1)
    check_budgets(known, penalties)
    observer = Observer(torch.zeros(0), torch.zeros(0), 5, 2, 0, penalties=penalties)
    actions = Actions.from_network(NETWORK, "profiles", BOOK, 2)
    policy = Policy((observer.size, actions.n_outputs), "Tanh", observer, actions, BOOK, known)
    for budget, penalty in zip(policy.limits, reversed(ends), strict=True):
        assert policy.chosen(budget=budget) == pytest.approx(penalty)
        assert policy.at(budget=budget).observer.penalties is None


@pytest.mark.parametrize(
    "known",
    [
        [[0.1, 0.5]],
        [[0.1, 0.5, 1.0], [0.2, 0.4, 1.0]],
        [[0.2, 0.5], [0.1, 0.4]],
        [[0.1, 0.4], [0.2, 0.5]],
        [[0.1, NAN], [0.2, 0.4]],
        [[0.001, 0.5], [0.2, 0.4]],
        [[0.1, 0.5], [2.0, 0.4]],
    ],
)
def test_budgets_that_are_none_are_refused(known: list[list[float]]) -> None:
    with pytest.raises(RLPruneError, match="budgets are ascending penalties of the policy's range, two or more, and"):
        make_ranged(torch.tensor(known, dtype=torch.float64))


def test_choosing_a_price_draws_no_random_number() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    DYNAMIC(DATA.images, budget=0.4)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("penalty", [0.01, 0.07, 1.0])
def test_a_policy_at_a_penalty_decides_as_if_it_saw_it(penalty: float) -> None:
    policy, n = make_ranged(), 40
    features, rng = len(policy.observer.mean), torch.Generator().manual_seed(0)
    parts = torch.randn(n, features, generator=rng), torch.zeros(n, 5), torch.zeros(n, dtype=torch.int64)
    at, spent = policy.at(penalty), torch.zeros(n)
    assert at.observer.penalties is None
    seen = policy.observer.observe(*parts, spent, torch.full((n,), penalty))
    assert torch.allclose(policy.network(seen), at.network(at.observer.observe(*parts, spent)), atol=1e-5)
    assert at.at() is at


def test_a_lower_price_buys_more_from_call_to_call() -> None:
    images = DATA.images
    costs = [DYNAMIC(images, penalty=penalty).macs.sum() for penalty in (0.01, 0.05, 0.1, 0.4, 1.0)]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]
    assert torch.equal(DYNAMIC(images).macs, DYNAMIC(images, penalty=0.1).macs)
    assert torch.equal(DYNAMIC(images).macs, DYNAMIC.at().at(penalty=0.1)(images).macs)


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.7])
def test_images_like_those_that_were_measured_cost_what_they_may(budget: float) -> None:
    share = float(DYNAMIC(DATA.images, budget=budget).macs.double().mean() / DYNAMIC.prices.dense.macs)
    assert share == pytest.approx(budget, rel=0.1)


def test_it_comes_back_from_a_bundle_and_an_onnx_file_begins_at_its_price(tmp_path: Any) -> None:
    save_bundle(tmp_path / "bundle", NETWORK, DYNAMIC.source_policy, DATA)
    again = load(tmp_path / "bundle")
    assert json.loads(json.dumps(again.source_policy.to_json())) == json.loads(
        json.dumps(DYNAMIC.source_policy.to_json())
    )
    expected = DYNAMIC(DATA.images, budget=0.4)
    assert torch.equal(again(DATA.images, budget=0.4).profiles, expected.profiles)
    (tmp_path / "dynamic.onnx").write_bytes(to_onnx(DYNAMIC.at(budget=0.4)))
    assert torch.equal(OnnxCNN(tmp_path / "dynamic.onnx")(DATA.images).profiles, expected.profiles)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0.01}, r"budget is 0\.01; with this policy images can cost 0\.\d+ to 0\.\d+ of the dense"),
        ({"budget": 2.0}, r"budget is 2\.0"),
        ({"penalty": 5.0}, r"penalty is 5\.0; the policy was trained for 0\.01 to 1"),
        ({"penalty": 0.1, "budget": 0.4}, r"penalty=0\.1, budget=0\.4: give only one of them"),
    ],
)
def test_prices_that_the_policy_does_not_know(options: dict[str, float], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        DYNAMIC(DATA.images, **options)


def test_a_policy_of_one_penalty_takes_no_other() -> None:
    fixed = DynamicCNN(NETWORK, DYNAMIC.policy, DATA.mean, DATA.std, DATA.classes)
    with pytest.raises(RLPruneError, match=r"budget=0\.4 cannot be chosen: it was trained for a single penalty; one f"):
        fixed(DATA.images, budget=0.4)
    with pytest.raises(RLPruneError, match="this policy knows no budgets: it was trained for a single penalty"):
        Controller(fixed, macs=0.4)
    with pytest.raises(BundleError, match="budgets belong to a range of penalties, and a range needs budgets"):
        Policy(DYNAMIC.source_policy.sizes, "Tanh", DYNAMIC.source_policy.observer, DYNAMIC.source_policy.actions, BOOK)
