from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from nets import make_data, make_elastic, make_levels, make_policy

from rlprune.errors import BundleError
from rlprune.policies.actions import ActionKind
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost, mlp_cost

NETWORK = make_elastic("residual")
DATA = make_data(40)
BOOK = sorted_codebook(make_levels(NETWORK, 5, seed=3), Cost(NETWORK))
kinds = pytest.mark.parametrize("action", ["profiles", "levels", "ratios"])


def observations(policy: Policy, n: int = 200) -> torch.Tensor:
    """Random ones, between the observer's bounds."""
    low, high = policy.observer.low, policy.observer.high
    return low + (high - low) * torch.rand(n, len(low), generator=torch.Generator().manual_seed(0))


@kinds
@pytest.mark.parametrize("max_passes", [1, 2, 3])
def test_json_and_tensors_hold_all_of_it(action: ActionKind, max_passes: int) -> None:
    policy = make_policy(NETWORK, DATA, BOOK, action, max_passes, combine=0.5 * (max_passes > 2))
    again = Policy.from_json(json.loads(json.dumps(policy.to_json())), policy.tensors())
    seen = observations(policy)
    assert all(torch.equal(*pair) for pair in zip(policy(seen), again(seen), strict=True))
    assert torch.equal(
        policy.observer.features(torch.ones(1, 16, 4, 4)), again.observer.features(torch.ones(1, 16, 4, 4))
    )
    assert again.to_json() == policy.to_json() and not again.training


def test_policies_stored_before_passes_could_combine_do_not() -> None:
    policy = make_policy(NETWORK, DATA, BOOK, max_passes=2, combine=0.5)
    description = {key: value for key, value in policy.to_json().items() if key != "combine"}
    assert Policy.from_json(policy.to_json(), policy.tensors()).observer.combine == 0.5
    assert not Policy.from_json(description, policy.tensors()).observer.combine


def test_the_decision_is_the_largest_output() -> None:
    policy = make_policy(NETWORK, DATA, BOOK, max_passes=2)
    seen = observations(policy)
    best = policy.network(seen).argmax(1)
    profiles, accept = policy(seen)
    assert torch.equal(accept, best == len(BOOK)) and 0 < accept.sum() < len(accept)
    assert torch.equal(profiles, torch.where(accept, 0, best))


@pytest.mark.parametrize("action", ["levels", "ratios"])
def test_levels_and_ratios_are_taken_to_the_nearest_profile(action: ActionKind) -> None:
    policy = make_policy(NETWORK, DATA, BOOK, action)
    seen = observations(policy)
    levels, _ = policy.actions.decode(policy.actions.greedy(policy.network(seen)))
    profiles, accept = policy(seen)
    distances = torch.tensor([[int((row - profile).abs().sum()) for profile in BOOK] for row in levels])
    assert torch.equal(distances.gather(1, profiles[:, None])[:, 0], distances.min(1).values)
    assert not accept.any() and len(profiles.unique()) > 1


def test_its_cost_is_that_of_its_linear_layers() -> None:
    policy = make_policy(NETWORK, DATA, BOOK)
    n_seen, n_out = 16 + 5 + 4, len(BOOK)
    cost = mlp_cost(policy.network)
    assert policy.sizes == (n_seen, 16, n_out)
    assert (int(cost.params), int(cost.macs)) == (n_seen * 16 + 16 + 16 * n_out + n_out, n_seen * 16 + 16 * n_out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "Softsign"}, "activation 'Softsign' is unknown; allowed: Tanh, ReLU, ELU, SiLU"),
        ({"sizes": [7, 16, 4]}, "the policy maps 7 numbers to 4; observations have 25 entries, actions 4"),
        ({"sizes": [25, 16, 9]}, "the policy maps 25 numbers to 9"),
        ({"sizes": [25, 8, 4]}, r"is malformed: RuntimeError: .*size mismatch"),
        ({"sizes": []}, "is malformed: IndexError"),
        ({"sizes": None}, "is malformed: TypeError"),
        ({"action": "widths"}, "action kind 'widths' is unknown; allowed: profiles, levels, ratios"),
        ({"max_passes": 9}, "max_passes is 9; 1, 2 or 3 is allowed"),
        ({"n_classes": "five"}, "is malformed: ValueError"),
    ],
)
def test_what_is_no_policy_is_refused(change: Any, message: str) -> None:
    policy = make_policy(NETWORK, DATA, BOOK)
    with pytest.raises(BundleError, match=message):
        Policy.from_json(policy.to_json() | change, policy.tensors())


@pytest.mark.parametrize("missing", ["sizes", "activation", "n_classes", "pool", "min_level"])
def test_an_incomplete_policy_is_refused(missing: str) -> None:
    policy = make_policy(NETWORK, DATA, BOOK)
    description = {key: value for key, value in policy.to_json().items() if key != missing}
    with pytest.raises(BundleError, match=f"the stored policy is malformed: KeyError: '{missing}'"):
        Policy.from_json(description, policy.tensors())


@pytest.mark.parametrize("missing", ["codebook", "observer.mean", "network.0.weight"])
def test_a_policy_that_lacks_a_tensor_is_refused(missing: str) -> None:
    policy = make_policy(NETWORK, DATA, BOOK)
    tensors = {name: tensor for name, tensor in policy.tensors().items() if name != missing}
    with pytest.raises(BundleError, match=rf"the stored policy is malformed: .*{missing}"):
        Policy.from_json(policy.to_json(), tensors)
