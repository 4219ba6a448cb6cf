"""Cascades: deciding by a threshold, without learning, as a policy like any other."""

from __future__ import annotations

from itertools import pairwise

import pytest
from nets import make_centred, make_data, make_levels

from rlprune.baselines.cascade import Cascade, best_cascades, cascade_policy, within
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.errors import RLPruneError
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK, DATA = make_centred(), make_data(60)
BOOK = sorted_codebook(make_levels(NETWORK, 3, seed=3), Cost(NETWORK))


def dynamic_of(cascade: Cascade) -> DynamicCNN:
    policy = cascade_policy(NETWORK, BOOK, cascade)
    return DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes)


ANSWERS = codebook_logits(dynamic_of(Cascade((0,), 0.0)), DATA)


@pytest.mark.parametrize("steps", [(0,), (2,), (0, 2), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_images_go_on_while_their_margin_is_below(steps: tuple[int, ...], share: float) -> None:
    top = ANSWERS.topk(2, dim=2).values
    margins = top[..., 0] - top[..., 1]
    margin = float(margins[steps[0]].quantile(share, interpolation="midpoint")) + {0.0: -0.001, 1.0: 0.001}.get(
        share, 0
    )
    found = dynamic_of(Cascade(steps, margin))(DATA.images)
    for i, ran in enumerate(found.profiles.tolist()):
        expected = [steps[0]]
        for before, step in pairwise(steps):
            if margins[before, i] >= margin:
                break
            expected.append(step)
        assert [profile for profile in ran if profile >= 0] == expected


def test_the_best_are_measured_as_they_run() -> None:
    best = best_cascades(NETWORK, BOOK, ANSWERS, DATA.labels)
    assert len(best) >= 2
    prices, accuracies = [one.price for one in best], [one.accuracy for one in best]
    assert prices == sorted(prices) and accuracies == sorted(accuracies)
    for one in best:
        dynamic = dynamic_of(one)
        found = dynamic(DATA.images)
        assert float((found.labels == DATA.labels).double().mean()) == pytest.approx(one.accuracy)
        n_asked = (found.passes + 1).clamp_max(len(one.steps)).double().mean()
        spent = (found.macs.double().mean() - n_asked * dynamic.prices.decision.macs) / dynamic.prices.dense.macs
        assert float(spent) == pytest.approx(one.price)
    assert within(best, 1e9) == best[-1]
    with pytest.raises(RLPruneError, match="budget 0 is below the cheapest cascade, which costs"):
        within(best, 0.0)


@pytest.mark.parametrize(
    ("cascade", "message"),
    [
        (Cascade((), 1.0), r"steps=\(\): one to 3 different profiles from 0 to 2"),
        (Cascade((1, 1), 1.0), r"steps=\(1, 1\)"),
        (Cascade((3,), 1.0), r"steps=\(3,\)"),
        (Cascade((0, 1), -1.0), r"margin=-1\.0: 0 or more"),
    ],
)
def test_cascades_that_cannot_be_are_named(cascade: Cascade, message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        cascade_policy(NETWORK, BOOK, cascade)
