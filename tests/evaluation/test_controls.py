from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from nets import make_centred, make_data, make_elastic, make_levels, make_policy
from torch import Tensor

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.elastic.cnn import ElasticCNN
from rlprune.evaluation.controls import Controls, best_at, hull
from rlprune.evaluation.dynamic import evaluate
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.search import search_profiles

NETWORK, OTHER = make_centred(), make_elastic("residual", seed=1)
TEST, CHOOSING = make_data(60), make_data(30, seed=1)
COST = Cost(NETWORK)
BOOK = sorted_codebook(make_levels(NETWORK, 4, seed=3), COST)


def dynamic(max_passes: int = 2) -> DynamicCNN:
    policy = make_policy(NETWORK, TEST, BOOK, max_passes=max_passes, seed=1)
    return DynamicCNN(NETWORK, policy, TEST.mean, TEST.std, TEST.classes)


def measure(*networks: ElasticCNN, n_candidates: int = 12, seed: int = 3) -> Controls:
    return Controls.measure(networks, BOOK, TEST, CHOOSING, n_candidates, seed)


@torch.no_grad()
def points(elastic: ElasticCNN, profiles: Tensor) -> list[tuple[float, float]]:
    """Cost and accuracy on the test images, by masks."""
    shares = (COST.of(profiles).macs / COST.dense.macs).tolist()
    said = [elastic(TEST.normalised(), profile.expand(len(TEST), -1)).argmax(1) for profile in profiles]
    return [(share, int((one == TEST.labels).sum()) / 60) for share, one in zip(shares, said, strict=True)]


@pytest.mark.parametrize("elastic", [NETWORK, OTHER])
def test_uniform_controls_are_the_uniform_profiles(elastic: ElasticCNN) -> None:
    (uniform,) = measure(elastic).uniform
    assert uniform == points(elastic, torch.stack([elastic.uniform(level) for level in (1, 2, 3, 4)]))


def test_static_controls_are_the_frontier_of_a_search_on_other_images_that_tries_the_codebook_too() -> None:
    (static,) = measure(NETWORK).static
    found = search_profiles(NETWORK, CHOOSING, 12, seed=3, also=BOOK)
    assert static == points(NETWORK, found.profiles[found.frontier()])
    assert all((found.profiles == profile).all(1).any() for profile in BOOK)


def test_random_controls_span_all_costs() -> None:
    (random,) = measure(NETWORK).random
    costs = [cost for cost, _ in random]
    assert costs == sorted(costs) and costs[0] < 0.4 and costs[-1] > 0.9


@pytest.mark.parametrize("max_passes", [1, 3])
def test_measured_before_they_give_the_same_figures(max_passes: int) -> None:
    expected = evaluate(dynamic(max_passes), TEST, CHOOSING, n_candidates=12, seed=3)
    again = evaluate(
        dynamic(max_passes),
        TEST,
        CHOOSING,
        controls=measure(NETWORK),
        logits=codebook_logits(dynamic(), TEST),
        dense=expected.dense_accuracy,
    )
    assert again == replace(expected, dense="original")


def test_nothing_is_searched_again_and_the_figures_say_how_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    controls = measure(NETWORK, n_candidates=7, seed=5)

    def forbidden(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(sys.modules["rlprune.evaluation.controls"], "search_profiles", forbidden)
    results = evaluate(dynamic(), TEST, CHOOSING, n_candidates=64, seed=0, controls=controls)
    assert (results.n_candidates, results.seed) == (7, 5)


def test_of_several_networks_the_better_one_counts() -> None:
    one, other, both = (
        evaluate(dynamic(), TEST, CHOOSING, controls=measure(*networks))
        for networks in ((NETWORK,), (OTHER,), (OTHER, NETWORK))
    )
    for name in ("uniform", "random", "best_static"):
        assert getattr(both.controls, name) == max(getattr(one.controls, name), getattr(other.controls, name))
    assert one.controls != other.controls
    assert both.controls.shuffled == one.controls.shuffled
    assert both.frontier.codebook == tuple(points(NETWORK, BOOK))


def test_the_best_of_two_networks_at_a_cost_by_hand() -> None:
    steep, flat = [(0.2, 0.1), (1.0, 0.9)], [(0.4, 0.5), (0.8, 0.6)]
    assert best_at(0.4, [steep, flat]) == (0.4, 0.5)
    assert best_at(0.9, [steep, flat]) == (0.9, pytest.approx(0.8))
    assert best_at(0.6, [steep, flat]) == (0.6, pytest.approx(0.55))
    assert best_at(1.2, [steep]) == (1.0, 0.9)
    assert best_at(0.1, [flat]) == (0.4, 0.5)


def test_points_that_something_cheaper_beats_are_left_out() -> None:
    first, second = [(0.2, 0.5), (0.6, 0.4), (1.0, 0.9)], [(0.1, 0.3), (0.6, 0.7), (0.8, 0.7)]
    assert hull([first, second]) == [(0.1, 0.3), (0.2, 0.5), (0.6, 0.7), (1.0, 0.9)]
    assert hull([first[:1]]) == [(0.2, 0.5)]


def test_the_frontier_shown_is_of_all_networks() -> None:
    controls = measure(NETWORK, OTHER)
    frontier = evaluate(dynamic(), TEST, CHOOSING, controls=controls).frontier
    for shown, of_networks in ((frontier.uniform, controls.uniform), (frontier.static, controls.static)):
        shares, accuracies = zip(*shown, strict=True)
        assert list(shares) == sorted(shares) and list(accuracies) == sorted(set(accuracies))
        for share, right in of_networks[0] + of_networks[1]:
            assert any(s <= share and a >= right for s, a in shown)
