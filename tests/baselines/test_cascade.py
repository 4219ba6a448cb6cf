"""Cascades: deciding by a threshold, without learning, as a policy like any other."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from nets import make_centred, make_data, make_levels
from torch import Tensor

from rlprune.baselines.cascade import WEIGHTS, Cascade, best_cascades, cascade_policy, within
from rlprune.baselines.cascade_search import margins_of
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx
from rlprune.errors import RLPruneError
from rlprune.policies.loop import run_policy
from rlprune.policies.passes import CostBreakdown
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import ComputeCost, Cost

NETWORK, DATA = make_centred(), make_data(60)
BOOK = sorted_codebook(make_levels(NETWORK, 3, seed=3), Cost(NETWORK))


def dynamic_of(cascade: Cascade) -> DynamicCNN:
    policy = cascade_policy(NETWORK, BOOK, cascade)
    return DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes)


ANSWERS = codebook_logits(dynamic_of(Cascade((0,), 0.0)), DATA)


def goes_on(logits: Tensor, margin: float) -> bool:
    first, second = logits.topk(2).values
    return float(first - second) < margin


@pytest.mark.parametrize("combine", [0.0, 1.0, 0.33])
@pytest.mark.parametrize(
    ("steps", "margins"), [((0,), ()), ((0, 2), (0.8,)), ((0, 1, 2), (0.4, 0.5)), ((2, 0, 1), (2, 0.1))]
)
def test_policy_and_cascade_follow_the_definition(
    steps: tuple[int, ...], margins: tuple[float, ...], combine: float
) -> None:
    cascade = Cascade(steps, margins, combine=combine)
    logits = 0.8 * torch.randn(3, 400, len(DATA.classes), generator=torch.Generator().manual_seed(4))
    prices = CostBreakdown.of(Cost(NETWORK), policy := cascade_policy(NETWORK, BOOK, cascade))
    as_policy = run_policy(policy, torch.zeros(400, 0), prices, lambda images, profile: logits[profile, images])
    as_cascade = cascade.run(logits)
    for image in range(400):
        ran, belief = [steps[0]], logits[steps[0], image]
        for step, margin in zip(steps[1:], margins, strict=True):
            if not goes_on(belief, margin):
                break
            ran.append(step)
            belief = (logits[step, image] + combine * belief) / (1 + combine)
        for found in (as_policy, as_cascade):
            assert [profile for profile in found.profiles[image].tolist() if profile >= 0] == ran
            assert torch.allclose(found.logits[image], belief, atol=1e-6)
    assert len(as_cascade.profiles.unique(dim=0)) == len(steps)


def test_an_exported_cascade_decides_alike(tmp_path: Path) -> None:
    first = float(margins_of(ANSWERS[0]).quantile(0.7))
    unsure = ANSWERS[:, margins_of(ANSWERS[0]) < first]
    second = float(margins_of(Cascade((0, 1), 99.0, combine=1.0).run(unsure).logits).quantile(0.5))
    dynamic = dynamic_of(Cascade((0, 1, 2), (first, second), combine=1.0))
    expected = dynamic(DATA.images)
    assert expected.passes.unique().tolist() == [1, 2, 3]
    save_onnx(tmp_path / "cascade.onnx", dynamic)
    found = OnnxCNN(tmp_path / "cascade.onnx")(DATA.images)
    assert torch.equal(found.profiles, expected.profiles) and torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("combine", [0.0, 1.0])
def test_no_cascade_is_better_than_the_best(combine: float) -> None:
    """On so few images that every margin that tells two of them apart is tried after each step."""
    logits, labels = ANSWERS[:, :12], DATA.labels[:12]
    best = best_cascades(NETWORK, BOOK, logits, labels, combine)
    prices = CostBreakdown.of(Cost(NETWORK), cascade_policy(NETWORK, BOOK, Cascade((0,))))
    for steps in ((0, 1), (0, 2), (1, 2), (0, 1, 2)):
        beliefs = [Cascade(steps[:n], 99.0, combine=combine).run(logits).logits for n in range(1, len(steps))]
        for margins in product(*(margins_of(belief).add(1e-6).tolist() for belief in beliefs)):
            ran = Cascade(steps, margins, combine=combine).run(logits)
            accuracy = float((ran.logits.argmax(1) == labels).double().mean())
            macs = (
                prices._replace(decision=ComputeCost(*torch.zeros(2, dtype=torch.int64))).of_passes(ran.profiles).macs
            )
            price = float(macs.double().mean() / prices.dense.macs)
            assert any(one.accuracy >= accuracy - 1e-9 and one.price <= price + 1e-9 for one in best)


def test_one_margin_is_that_of_every_step() -> None:
    assert Cascade((0, 1, 2), 1.5) == Cascade((0, 1, 2), margin=1.5) == replace(Cascade((0, 1, 2)), margins=(1.5, 1.5))
    assert (Cascade((0, 1), 1.5).margin, Cascade((0,), 1.5).margins, Cascade((0,)).margin) == (1.5, (), 0.0)
    assert str(Cascade((0, 1, 2), (1.5, 2), combine=1)) == "0 > 1 below 1.50 > 2 below 2.00, logits combined by 1"


def test_the_best_are_measured_as_they_run() -> None:
    best = best_cascades(NETWORK, BOOK, ANSWERS, DATA.labels, WEIGHTS)
    assert len(best) >= 2 and {len(one.steps) for one in best} >= {2, 3}
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
        (Cascade((0, 1), -1.0), r"margins=\(-1\.0,\): one for each of the 2 steps but the last, 0 or more"),
        (Cascade((0, 1), float("inf")), r"margins=\(inf,\): one for each of the 2 steps"),
        (Cascade((0, 1, 2), (1.0,)), r"margins=\(1\.0,\): one for each of the 3 steps"),
        (Cascade((0, 1), 1.0, combine=-1.0), r"combine=-1\.0: a number of 0 or more"),
    ],
)
def test_cascades_that_cannot_be_are_named(cascade: Cascade, message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        cascade_policy(NETWORK, BOOK, cascade)
