"""Rivals that decide per image: cascades pay for all that they do, and nothing beats the oracle."""

from __future__ import annotations

import itertools

import pytest
import torch
from nets import make_centred, make_data, make_levels, make_policy

from rlprune.baselines.cascade import WEIGHTS, best_cascades, cascade_policy
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.evaluation.controls import best_at
from rlprune.evaluation.dynamic import evaluate
from rlprune.evaluation.per_image.rivals import oracle_points, tuned_cascades
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK = make_centred()
BOOK = sorted_codebook(make_levels(NETWORK, 3, seed=3), Cost(NETWORK))
TEST, CHOOSING = make_data(60), make_data(40, seed=1)
DYNAMIC = DynamicCNN.for_images(NETWORK, make_policy(NETWORK, TEST, BOOK, max_passes=2, combine=0.5), TEST)


def test_cascades_are_tuned_on_other_images_and_cost_what_their_policies_cost() -> None:
    points = tuned_cascades(DYNAMIC, TEST, CHOOSING, codebook_logits(DYNAMIC, TEST))
    teaching = codebook_logits(DYNAMIC, CHOOSING)
    found = best_cascades(NETWORK, BOOK, teaching, CHOOSING.labels, (*WEIGHTS, 0.5))
    measured = []
    for cascade in found:
        answers = DynamicCNN.for_images(NETWORK, cascade_policy(NETWORK, BOOK, cascade), TEST)(TEST.images)
        share = float(answers.macs.double().mean() / Cost(NETWORK).dense.macs)
        measured.append((share, float((answers.labels == TEST.labels).double().mean())))
    assert len(points) == len(measured) >= 2
    for point, expected in zip(points, measured, strict=True):
        assert point == pytest.approx(expected)


def test_cascades_and_the_oracle_are_controls_at_the_policys_cost() -> None:
    found = evaluate(DYNAMIC, TEST, CHOOSING, n_candidates=5)
    logits = codebook_logits(DYNAMIC, TEST)
    cascades = tuned_cascades(DYNAMIC, TEST, CHOOSING, logits)
    assert found.frontier.cascade == cascades[:: -(-len(cascades) // 24)]
    share = 1 - found.macs_cut
    assert (1 - found.controls_macs_cut.cascade, found.controls.cascade) == pytest.approx(best_at(share, [cascades]))
    assert found.controls.oracle > found.controls.shuffled
    given = evaluate(DYNAMIC, TEST, CHOOSING, n_candidates=5, static_trained=[(share - 0.1, 0.2), (share + 0.1, 0.4)])
    assert given.controls.static_trained == pytest.approx(0.3) and given.frontier.static_trained is not None


def test_nothing_of_the_same_cost_beats_the_oracle() -> None:
    """Against every way of giving five images one of three profiles."""
    shares = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    right = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 0, 0, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    points = oracle_points(shares, right)
    costs, accuracies = zip(*points, strict=True)
    assert costs == pytest.approx((0.2, 0.32, 0.48)) and accuracies == pytest.approx((0.2, 0.6, 0.8))
    for chosen in itertools.product(range(3), repeat=5):
        accuracy = sum(bool(right[profile, image]) for image, profile in enumerate(chosen)) / 5
        cost = float(shares[list(chosen)].mean())
        assert best_at(cost, [points])[1] >= accuracy - 1e-9
