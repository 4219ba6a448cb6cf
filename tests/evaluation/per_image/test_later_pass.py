"""What another pass repairs and breaks, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import make_centred, make_data, make_levels, make_policy

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits, predict_all
from rlprune.evaluation.per_image.later_pass import decision_figures, figures_of
from rlprune.evaluation.results import DecisionFigures
from rlprune.metrics import auroc
from rlprune.policies.passes import another_pass
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK, TEST = make_centred(), make_data(60)
BOOK = sorted_codebook(make_levels(NETWORK, 3, seed=3), Cost(NETWORK))


def policy_of(**settings: Any) -> Policy:
    return make_policy(NETWORK, TEST, BOOK, seed=1, **settings)


def test_the_figures_by_hand() -> None:
    earlier = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
    later = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0], dtype=torch.bool)  # breaks one of four, repairs two of four
    policy = torch.tensor([0.0, 1, 2, 3, 2, 4, 5, 0])  # 2 is above 3 of 6 others, level with 1; 4 above 5
    margin = -torch.tensor([9.0, 8, 7, 6, 1, 2, 3, 4])
    expected = DecisionFigures(breaks=0.25, repairs=0.5, policy_auroc=(3 + 0.5 + 5) / 12, margin_auroc=1.0)
    assert figures_of(earlier, later, policy, margin) == expected
    every = torch.ones(8, dtype=torch.bool)
    assert figures_of(every, later, policy, margin) == DecisionFigures(breaks=3 / 8)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    scores = torch.tensor([3.0, 1, 2, 2, 5, 2])
    positive = torch.tensor([1, 0, 1, 0, 0, 1], dtype=torch.bool)
    pairs = [(a > b) + 0.5 * (a == b) for a in (3, 2, 2) for b in (1, 2, 5)]
    assert auroc(scores, positive) == pytest.approx(sum(pairs) / 9)
    assert auroc(scores, ~positive) == pytest.approx(1 - sum(pairs) / 9)
    assert auroc(scores, torch.zeros(6, dtype=torch.bool)) is None


@pytest.mark.parametrize("settings", [{"combine": 0.0}, {"combine": 1.0, "pool": 0}])
@torch.no_grad()
def test_each_image_is_compared_with_the_pass_that_its_policy_ranks_next(settings: dict[str, Any]) -> None:
    dynamic = DynamicCNN.for_images(NETWORK, policy_of(max_passes=2, **settings), TEST)
    predicted, logits = predict_all(dynamic, TEST), codebook_logits(dynamic, TEST)
    found = decision_figures(dynamic, TEST, predicted, logits)
    assert found is not None
    went = predicted.passes == 2
    first, second = predicted.profiles[:, 0], predicted.profiles[:, 1]
    features = dynamic.policy.observer.features(dynamic.slices.stem(TEST.normalised()))
    spent = (dynamic.prices.stem.macs + dynamic.prices.bodies.macs[first]) / dynamic.prices.dense.macs
    earlier = logits[first, torch.arange(60)]
    seen = dynamic.policy.observer.observe(features, earlier, torch.ones(60, dtype=torch.int64), spent)
    scores, following = another_pass(dynamic.policy, dynamic.policy.network(seen), first)
    assert torch.equal(scores > 0, went) and torch.equal(following[went], second[went])
    combine = settings["combine"]
    later = (logits[following, torch.arange(60)] + combine * earlier) / (1 + combine)
    right, still = earlier.argmax(1) == TEST.labels, later.argmax(1) == TEST.labels
    assert (found.breaks, found.repairs) == pytest.approx(
        (float((~still)[right].double().mean()), float(still[~right].double().mean()))
    )
    assert found.policy_auroc == pytest.approx(auroc(scores, ~right & still))


@pytest.mark.parametrize("action", ["levels", "ratios"])
def test_policies_over_levels_and_ratios_go_on_where_their_score_is_above_zero(action: str) -> None:
    policy = policy_of(max_passes=2, action=action)
    outputs = torch.randn(50, policy.actions.n_outputs, generator=torch.Generator().manual_seed(2))
    scores, following = another_pass(policy, outputs, torch.zeros(50, dtype=torch.int64))
    profiles, accept = policy.decided(outputs)
    assert torch.equal(scores > 0, ~accept) and torch.equal(following, profiles)
    assert 0 < int(accept.sum()) < 50


def test_a_policy_of_one_pass_has_no_such_figures() -> None:
    dynamic = DynamicCNN.for_images(NETWORK, policy_of(max_passes=1), TEST)
    assert decision_figures(dynamic, TEST, predict_all(dynamic, TEST), codebook_logits(dynamic, TEST)) is None
