"""What images are answered from recorded logits is what the deployed network answers."""

from __future__ import annotations

import pytest
import torch
from nets import make_data, make_elastic, make_levels, make_policy
from ranged import DATA, DYNAMIC, RANGE, make_ranged

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.optimization.verdict.decisions import N_POINTS, Recorded, cascade_points, learnt_points
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost


@pytest.mark.parametrize(("passes", "pool"), [(1, 1), (2, 0), (2, 2)])
def test_recorded_answers_and_costs_are_the_networks_own(passes: int, pool: int) -> None:
    elastic = make_elastic("residual")
    book = sorted_codebook(make_levels(elastic, 3, seed=2), Cost(elastic))
    data = make_data(40)
    policy = make_policy(elastic, data, book, max_passes=passes, pool=pool)
    dynamic = DynamicCNN(elastic, policy, data.mean, data.std, data.classes)
    expected = dynamic(data.images)
    found = Recorded(dynamic, data).answers(policy)
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.shares, expected.macs.double() / dynamic.prices.dense.macs)
    assert len(found.shares.unique()) > 1 or not pool  # without features all images begin alike


def test_a_policy_for_a_range_is_tried_at_many_penalties_from_end_to_end() -> None:
    points = learnt_points(make_ranged())
    assert len(points) == N_POINTS
    penalties = [point.penalty for point in points]
    assert penalties[0] == pytest.approx(RANGE.low) and penalties[-1] == pytest.approx(RANGE.high)
    recorded = Recorded(DYNAMIC, DATA)
    for point in points[:: N_POINTS // 2]:
        assert point.penalty is not None
        expected = DYNAMIC(DATA.images, penalty=point.penalty)
        found = recorded.answers(point.policy)
        assert torch.equal(found.labels, expected.labels)
        assert found.shares.mean() == pytest.approx(expected.macs.double().mean() / DYNAMIC.prices.dense.macs)


def test_thresholds_are_of_all_costs() -> None:
    points = cascade_points(DYNAMIC.elastic, DYNAMIC.policy.codebook, Recorded(DYNAMIC, DATA))
    recorded = Recorded(DYNAMIC, DATA)
    shares = [float(recorded.answers(point.policy).shares.mean()) for point in points]
    assert all(point.penalty is None for point in points)
    assert len(points) >= 1 and min(shares) < 0.5
