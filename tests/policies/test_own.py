"""Observations of a user's own: the same everywhere, checked once, stored by name and settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mine
import pytest
import torch
from nets import make_data, make_elastic, make_levels
from torch import Tensor

from rlprune.errors import BundleError, RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.loop import run_policy
from rlprune.policies.observations import Observer
from rlprune.policies.one_image import SingleImagePolicy
from rlprune.policies.passes import CostBreakdown
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy, check_fit
from rlprune.policies.protocol import Seen, StemAndBelief
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost, mlp_cost
from rlprune.storage.policies import load_policy, save_policy

NETWORK, DATA = make_elastic("residual"), make_data(40)
BOOK = sorted_codebook(make_levels(NETWORK, 4, seed=3), Cost(NETWORK))


class Same(StemAndBelief):
    """The default observation, as somebody's own."""


def make_policy(observation: Any, **more: Any) -> Policy:
    observer = Observer.fit(NETWORK, DATA, max_passes=2, observation=observation, **more)
    actions = Actions.from_network(NETWORK, "profiles", BOOK, 2)
    torch.manual_seed(0)
    policy = Policy((observer.size, 8, actions.n_outputs), "Tanh", observer, actions, BOOK)
    for parameter in policy.network.parameters():
        parameter.data *= 6
    return policy.eval()


@torch.no_grad()
def decided(policy: Policy, alone: bool = False) -> Tensor:
    """The profiles that images run, in a batch or one by one."""
    stem = NETWORK.stem(DATA.normalised())
    prices = CostBreakdown.of(Cost(NETWORK), policy)

    def of_all(rows: Tensor, profile: int) -> Tensor:
        return NETWORK.run_body(stem[rows], BOOK[profile])

    observed = policy.observer.features(stem)
    if not alone:
        return run_policy(policy, observed, prices, of_all).profiles
    single = SingleImagePolicy(policy, prices, None)
    return torch.cat([single.run(observed[i : i + 1], lambda _, k, i=i: of_all([i], k)).profiles for i in range(40)])


def test_the_default_observation_by_its_name_is_the_default_one() -> None:
    named = Observer.fit(
        NETWORK, DATA, observation={"class": "rlprune.policies.protocol:StemAndBelief", "settings": {"pool": 1}}
    )
    default = Observer.fit(NETWORK, DATA, pool=1)
    assert named.own is None and named.pool == 1
    assert torch.equal(named.mean, default.mean) and torch.equal(named.std, default.std)


def test_a_copy_of_the_default_observation_decides_as_it_does() -> None:
    own, default = make_policy(Same(pool=1)), make_policy(None, pool=1)
    assert own.observer.own is not None and own.sizes == default.sizes
    assert own.observer.n_features == default.observer.n_features == 16
    expected = decided(default)
    assert len(expected.unique(dim=0)) > 2
    assert torch.equal(decided(own), expected) and torch.equal(decided(own, alone=True), expected)


def test_what_is_measured_is_measured_on_a_copy_and_bounds_are_those_of_the_class() -> None:
    given = mine.Brightness(cells=2)
    observer = Observer.fit(NETWORK, DATA, observation=given, penalties=PenaltyRange(0.01, 1.0))
    assert observer.own is not None and not len(given.mean)
    pooled = torch.cat([given.pooled(NETWORK.stem(DATA.normalised()))])
    assert torch.allclose(observer.own.tensors()["mean"], pooled.mean(0), atol=1e-6)
    assert (observer.n_features, observer.size) == (64, 64 + 2 + 1)
    assert observer.low.tolist() == [-3.0] * 66 + [0.0] and observer.high.tolist() == [3.0] * 66 + [1.0]


def test_a_range_of_penalties_adds_the_place_of_the_penalty() -> None:
    observer = Observer.fit(NETWORK, DATA, observation=mine.Doubt(), penalties=PenaltyRange(0.01, 1.0))
    passes, spent = torch.zeros(3, dtype=torch.int64), torch.zeros(3)
    seen = observer.observe(torch.zeros(3, 0), torch.zeros(3, 5), passes, spent, torch.tensor([0.01, 0.1, 1.0]))
    assert seen[:, -1].tolist() == pytest.approx([0, 0.5, 1], abs=1e-6)
    assert seen.shape == (3, observer.size) == (3, observer.fixed().size + 1)


def test_what_an_observation_costs_is_paid_for_with_every_decision() -> None:
    policy = make_policy(mine.Brightness())
    assert int(CostBreakdown.of(Cost(NETWORK), policy).decision.macs) == int(mlp_cost(policy.network).macs) + 7


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda seen: seen.spent, r"torch\.float32 of shape \(40,\) is given for 40 images; .*\(40, entries\) is need"),
        (lambda seen: seen.logits[:1], r"of shape \(1, 5\) is given for 40 images"),
        (lambda seen: seen.passes[:, None], r"torch\.int64 of shape \(40, 1\) is given"),
        (lambda seen: seen.logits.double(), r"torch\.float64 of shape \(40, 5\) is given"),
        (
            lambda seen: seen.logits[:, : 1 + seen.passes[0]] * 0,
            r"torch\.float32 \(40, 1\) is needed",
        ),
        (lambda seen: seen.logits.numpy(), "a ndarray is given; a float32 tensor"),
        (lambda seen: seen.logits.log() * 0, "some numbers are not finite"),
        (lambda seen: seen.logits, "for entry 0; by its bounds it lies from 0 to 1: clamp it, or give other bounds"),
        (lambda seen: seen.spent[:, None] * 0.3, None),
        (lambda seen: torch.rand(len(seen.spent), 3), "must depend on its own image alone, and on nothing random"),
        (lambda seen: seen.logits.softmax(0), "gives something else for an image alone than for the same among others"),
        (lambda seen: seen.image, "failed \\(AttributeError: 'Seen' object has no attribute 'image'"),
    ],
)
def test_an_observation_is_tried_once(gives: Callable[[Seen], Any], message: str | None) -> None:
    strange = type("Strange", (mine.Doubt,), {"__call__": lambda _, seen: gives(seen)})()
    if message is None:
        assert Observer.fit(NETWORK, DATA, max_passes=2, observation=strange).size == 1
        return
    with pytest.raises(RLPruneError, match=message) as caught:
        Observer.fit(NETWORK, DATA, max_passes=2, observation=strange)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"low": 2.0}, "has bounds that do not ascend"),
        ({"high": float("nan")}, "has bounds that do not ascend"),
        ({"low": None}, "has low=None; a number is needed, or one for each of its 2 entries"),
        ({"high": (1.0, 1.0, 1.0)}, r"has high=\(1\.0, 1\.0, 1\.0\); a number is needed"),
        ({"cost": 3}, "has cost=3; parameters and MACs are needed"),
        ({"cost": (0, -1)}, r"cost\[1\] .*=-1: give a whole number from 0"),
        ({"fit": lambda self, batches: None}, r"has a method fit and is no nn\.Module; make it one"),
        ({"features": lambda self, stem: stem}, r"features of .*: torch\.float32 of shape \(40, 16, 16, 16\) is given"),
        ({"features": lambda self, stem: 1 / 0}, r"features of .* failed \(ZeroDivisionError: division by zero\)"),
    ],
)
def test_members_that_cannot_be_used_are_named(members: dict[str, Any], message: str) -> None:
    odd = type("Odd", (mine.Doubt,), members)()
    with pytest.raises(RLPruneError, match=message):
        Observer.fit(NETWORK, DATA, max_passes=2, observation=odd)


class Learnt(torch.nn.Module):
    """An observation with weights, which are stored, or with some that are not."""

    low, high = -1.0, 1.0

    def __init__(self, hidden: bool = False) -> None:
        super().__init__()
        self.hidden = hidden
        layer = torch.nn.Linear(5, 2)
        self.layer = [layer] if hidden else torch.nn.ModuleList([layer])

    def forward(self, seen: Seen) -> Tensor:
        return self.layer[0](seen.logits).tanh()


def test_weights_of_an_observation_are_stored_and_hidden_ones_refused() -> None:
    policy = make_policy(Learnt())
    again = Policy.from_json(policy.to_json(), policy.tensors(), Learnt)
    assert torch.equal(decided(again), decided(policy))
    with pytest.raises(
        RLPruneError, match=r"made again with its settings, gives something else; what it measures or dr"
    ):
        make_policy(Learnt(hidden=True))


@pytest.mark.parametrize("given", [mine.Brightness, "mine:Brightness"])
def test_a_stored_policy_comes_back_where_its_class_is_given(tmp_path: Path, given: Any) -> None:
    policy = make_policy(mine.Brightness(cells=2))
    save_policy(tmp_path / "policy", policy, {})
    manifest = json.loads((tmp_path / "policy" / "manifest.json").read_text())
    assert (manifest["format"], manifest["observation"]) == (2, "mine:Brightness")
    loaded = load_policy(tmp_path / "policy", given).policy
    assert loaded.to_json() == policy.to_json()
    assert loaded.to_json()["observation"] == {"class": "mine:Brightness", "settings": {"cells": 2}, "n_features": 64}
    assert torch.equal(decided(loaded), decided(policy))


def test_a_class_is_never_imported_because_a_file_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_policy(tmp_path / "policy", make_policy(mine.Doubt()), {})
    save_policy(tmp_path / "default", make_policy(None), {})
    monkeypatch.delitem(sys.modules, "mine")
    with pytest.raises(
        BundleError, match="has an observation of its own, mine:Doubt, and loading runs no code"
    ) as caught:
        load_policy(tmp_path / "policy")
    assert "--observation mine:Doubt" in str(caught.value) and "mine" not in sys.modules
    with pytest.raises(
        BundleError, match="has the observation mine:Doubt, and mine:Brightness is given; give that class"
    ):
        load_policy(tmp_path / "policy", "mine:Brightness")
    with pytest.raises(RLPruneError, match="no class; give a class, or 'module:Class'"):
        load_policy(tmp_path / "policy", mine.Doubt())  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="has rlprune's own observation, and another one is given; leave it out"):
        load_policy(tmp_path / "default", mine.Doubt)


def test_what_does_not_fit_a_class_is_refused() -> None:
    policy = make_policy(mine.Brightness(cells=2))
    told, tensors = policy.to_json(), policy.tensors()
    with pytest.raises(BundleError, match=r"has the tensors \['mean'\], and \[\] are stored"):
        Policy.from_json(told, {name: t for name, t in tensors.items() if "observer" not in name}, mine.Brightness)
    wrong = told | {"observation": told["observation"] | {"settings": {"sells": 2}}}
    with pytest.raises(BundleError, match=r"mine:Brightness cannot be made with the settings .*'sells'"):
        Policy.from_json(wrong, tensors, mine.Brightness)
    other = told | {"observation": told["observation"] | {"settings": {"cells": 1}}}
    with pytest.raises(BundleError, match="the policy was trained for another network: features of mine:Brightness"):
        check_fit(NETWORK, Policy.from_json(other, tensors, mine.Brightness), tuple(DATA.classes))
