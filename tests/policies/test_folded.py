"""Folded policies: they decide as they are, and read no more than their first layer gives weight to."""

from __future__ import annotations

import pytest
import torch
from nets import make_centred, make_data, make_levels, make_policy
from torch import Tensor, nn

from rlprune.policies.actions import Actions
from rlprune.policies.folded import FoldedPolicy
from rlprune.policies.observations import Observer
from rlprune.policies.one_image import observe_one
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy
from rlprune.policies.protocol import StemAndBelief
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK, DATA = make_centred(), make_data(60)
BOOK = sorted_codebook(make_levels(NETWORK, 6, seed=3), Cost(NETWORK))
N_SEEN = 500
FEATURES, LOGITS = "features", ("probabilities", "entropy", "margin")


def made(seed: int, pool: int, unread: tuple[str, ...] = ()) -> Policy:
    """A policy whose first layer gives no weight to some parts of an observation."""
    policy = make_policy(NETWORK, DATA, BOOK, max_passes=3, seed=seed, pool=pool, scale=2.0)
    n_features, n_beliefs = policy.observer.n_features, policy.observer.n_beliefs
    sizes = {FEATURES: n_features, "probabilities": n_beliefs, "entropy": 1, "margin": 1, "spent": 1, "passes": 1}
    first = policy.network[0]
    assert isinstance(first, nn.Linear)
    columns = dict(zip(sizes, first.weight.data.split(list(sizes.values()), 1), strict=True))
    for name in unread:
        columns[name].zero_()
    return policy


def seen(policy: Policy, least: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, logits, passes from `least` on, and MACs spent of images."""
    generator = torch.Generator().manual_seed(1)
    passes = torch.randint(least, 3, (N_SEEN,), generator=generator)
    logits = 4 * torch.randn(N_SEEN, len(DATA.classes), generator=generator) * (passes > 0)[:, None]
    features = torch.randn(N_SEEN, policy.observer.n_features, generator=generator)
    return features, logits, passes, torch.rand(N_SEEN, generator=generator)


@pytest.mark.parametrize("pool", [0, 1])
@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(
    "unread", [(), (FEATURES,), ("probabilities",), ("probabilities", "entropy"), LOGITS, (*LOGITS, "spent", "passes")]
)
def test_it_decides_as_the_policy_does(pool: int, begun: bool, unread: tuple[str, ...]) -> None:
    chosen = []
    for seed in range(4):
        policy = made(seed, pool, unread)
        images = seen(policy, int(begun))
        with torch.no_grad():
            expected = policy(policy.observer.observe(*images))
            found = FoldedPolicy(policy, begun=begun)(*images)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
        chosen.append(found[0])
    assert len(torch.cat(chosen).unique()) > 2


def test_it_knows_what_is_read() -> None:
    cases = {(): (True, True), (FEATURES,): (False, True), ("probabilities", "entropy"): (True, False)}
    for unread, expected in cases.items():
        folded = FoldedPolicy(made(0, 1, unread), begun=True)
        assert (folded.reads_features, folded.reads_probabilities) == expected


def test_who_reads_the_margin_alone_computes_no_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = made(0, 0, ("probabilities", "entropy"))
    images = seen(policy, 1)
    monkeypatch.setattr(Tensor, "log_softmax", lambda *_: pytest.fail("probabilities were computed"))
    assert len(FoldedPolicy(policy, begun=True)(*images)[0]) == N_SEEN


def test_one_image_shows_the_same_margin_where_nothing_else_is_read() -> None:
    policy = made(0, 0)
    features, logits, _, spent = seen(policy, 1)
    one, two = policy.observer.n_beliefs, policy.observer.n_beliefs + 2
    for row in range(20):
        given = features[row].numpy(), logits[row].numpy(), 1, float(spent[row])
        whole, margin = (observe_one(policy.observer, *given, margin_only=only) for only in (False, True))
        assert margin[one + 1 :] == pytest.approx(whole[one + 1 :], abs=1e-6)
        assert not margin[: two - 1].any() and whole[:one].any()


class Mine(StemAndBelief):
    """The default observation, as somebody's own."""


@pytest.mark.parametrize("observation", [None, Mine(1)])
def test_a_policy_for_a_range_decides_at_a_place_as_at_its_penalty(observation: StemAndBelief | None) -> None:
    penalties = PenaltyRange(0.01, 1.0)
    known = torch.tensor([[0.01, 0.9], [1.0, 0.2]], dtype=torch.float64)
    observer = Observer.fit(NETWORK, DATA, max_passes=3, pool=1, penalties=penalties, observation=observation)
    actions = Actions.from_network(NETWORK, "profiles", BOOK, 3)
    torch.manual_seed(0)
    policy = Policy((observer.size, 8, actions.n_outputs), "Tanh", observer, actions, BOOK, known).eval()
    for parameter in policy.network.parameters():
        parameter.data *= 6
    images, chosen = seen(policy, 1), []
    for penalty in (0.01, 0.1, 0.5):
        fixed = policy.at(penalty)
        place = penalties.place(torch.tensor([penalty]))
        with torch.no_grad():
            expected = fixed(fixed.observer.observe(*images))
            for found in (FoldedPolicy(policy, begun=True)(*images, place), FoldedPolicy(fixed, begun=True)(*images)):
                assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
        chosen.append(expected[0])
    assert not torch.equal(chosen[0], chosen[-1])
