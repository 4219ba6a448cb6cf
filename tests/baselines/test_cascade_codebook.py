from __future__ import annotations

import pytest
import torch
from nets import make_data, make_elastic

from rlprune.baselines import cascade_codebook
from rlprune.baselines.cascade_codebook import codebook_for_cascades
from rlprune.errors import RLPruneError
from rlprune.profiles.cost import Cost
from rlprune.profiles.search import Search

NETWORK = make_elastic("plain")
DATA = make_data(200)
COST = Cost(NETWORK)
PROFILES = torch.stack([NETWORK.uniform(level) for level in range(NETWORK.narrowest, NETWORK.n_levels)])
SHARES = COST.of(PROFILES).macs.double() / COST.dense.macs
WHOLE = len(PROFILES) - 1


def logits(right: torch.Tensor, sure: torch.Tensor) -> torch.Tensor:
    """Logits that are right about some images, and sure of some."""
    found = torch.zeros(len(DATA), NETWORK.n_classes)
    chosen = torch.where(right, DATA.labels, (DATA.labels + 1) % NETWORK.n_classes)
    found[torch.arange(len(DATA)), chosen] = torch.where(sure, 10.0, 1.0)
    return found


def test_a_first_look_that_knows_what_it_does_not_know_is_better_than_a_more_accurate_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = torch.arange(200) % 2 == 0
    most = torch.arange(200) % 10 < 7
    looks = {
        0: logits(half, half),
        1: logits(most, torch.ones(200, dtype=torch.bool)),
        WHOLE: logits(~half | half, half),
    }
    monkeypatch.setattr(
        cascade_codebook,
        "_logits",
        lambda _, profile, __: looks[next(i for i, each in enumerate(PROFILES) if each.equal(profile))],
    )
    chosen = [0, 1, WHOLE]
    found = Search(PROFILES[chosen], torch.tensor([0.5, 0.7, 1.0], dtype=torch.float64), SHARES[chosen])
    budget = float(SHARES[0]) + 0.5
    assert codebook_for_cascades(NETWORK, found, DATA, 2, [budget]).tolist() == PROFILES[[0, WHOLE]].tolist()
    assert codebook_for_cascades(NETWORK, found, DATA, 1, [budget]).tolist() == PROFILES[[WHOLE]].tolist()
    assert len(codebook_for_cascades(NETWORK, found, DATA, 3, [budget])) == 2  # a third one would not help


def test_candidates_are_those_nearest_to_the_frontier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade_codebook, "_MOST", 2)
    found = Search(PROFILES[:3], torch.tensor([0.5, 0.1, 0.9], dtype=torch.float64), SHARES[:3])
    near = cascade_codebook._near_the_frontier(found)
    assert {tuple(each) for each in near.tolist()} == {tuple(each) for each in PROFILES[[0, 2]].tolist()}


def test_what_no_profile_can_do_is_refused() -> None:
    found = Search(PROFILES, torch.linspace(0.1, 0.9, len(PROFILES)).double(), SHARES)
    for budgets in ([], [0.5 * float(SHARES[0]), 1.0]):
        with pytest.raises(RLPruneError, match=r"budgets are .*; give one or more of 0"):
            codebook_for_cascades(NETWORK, found, DATA, 2, budgets)
