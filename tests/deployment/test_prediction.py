"""What a prediction says: of its last pass, of all of them together, and of what they cost."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from centred import BOOK, DATA, NETWORK, make
from nets import make_policy, relative_error

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.policies.passes import CostBreakdown
from rlprune.profiles.cost import Cost


def test_a_prediction_describes_its_last_pass() -> None:
    dynamic = make(3, seed=1)
    predicted = dynamic(DATA.images)
    for i in range(10):
        profile = int(predicted.profiles[i, predicted.passes[i] - 1])
        with torch.no_grad():
            logits = dynamic.slice(profile)(DATA.normalised([i]))
        assert relative_error(predicted.probabilities[i], logits.softmax(1)[0]) < 1e-5
        ratios = [NETWORK.keep_ratios[int(level)] for level in BOOK[profile]]
        assert predicted.keep_ratios[i].tolist() == ratios
    assert torch.equal(predicted.labels, predicted.probabilities.argmax(1))


@torch.no_grad()
def test_combined_passes_predict_with_all_their_logits_of_which_later_ones_count_more() -> None:
    dynamic = make(3, seed=1, combine=0.5)
    predicted = dynamic(DATA.images)
    everything = torch.stack([dynamic.slice(profile)(DATA.normalised()) for profile in range(len(BOOK))])
    ran = [profiles[profiles >= 0] for profiles in predicted.profiles]
    shares = [torch.tensor([1.0]), torch.tensor([1 / 3, 2 / 3]), torch.tensor([1 / 9, 2 / 9, 2 / 3])]
    means = torch.stack([shares[len(profiles) - 1] @ everything[profiles, i] for i, profiles in enumerate(ran)])
    lasts = torch.stack([everything[profiles[-1], i] for i, profiles in enumerate(ran)])
    assert torch.equal(predicted.labels, means.argmax(1)) and not torch.equal(predicted.labels, lasts.argmax(1))
    assert relative_error(predicted.probabilities, means.softmax(1)) < 1e-5
    assert any((profiles.diff() < 0).any() for profiles in ran)  # narrower after wider, too


def test_every_pass_and_every_decision_is_paid_for_and_the_stem_once() -> None:
    dynamic = make(3, seed=1)
    predicted, cost = dynamic(DATA.images), Cost(NETWORK)
    for profiles, n_passes, macs in zip(predicted.profiles, predicted.passes, predicted.macs, strict=True):
        ran = [int(cost.of(BOOK[profile]).macs) for profile in profiles[:n_passes]]
        n_decisions = min(3, int(n_passes) + 1)
        expected = sum(ran) - (len(ran) - 1) * int(cost.stem.macs) + n_decisions * int(dynamic.prices.decision.macs)
        assert int(macs) == expected


def test_predictions_are_plain_tensors() -> None:
    predicted = make(2)(DATA.images[:5])
    assert not predicted.probabilities.requires_grad
    assert predicted.profiles.shape == (5, 2) and predicted.keep_ratios.shape == (5, 3)
    np.testing.assert_allclose(predicted.probabilities.sum(1), np.ones(5), rtol=1e-5)


@pytest.mark.parametrize("max_batch", [None, 7])
def test_what_a_prediction_cost_is_computed_once_it_is_asked_for(
    max_batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(NETWORK, DATA, BOOK, max_passes=2, seed=1)
    dynamic = DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes, max_batch=max_batch)
    asked: list[int] = []
    of_passes = CostBreakdown.of_passes
    monkeypatch.setattr(CostBreakdown, "of_passes", lambda self, ran: asked.append(len(ran)) or of_passes(self, ran))
    one, more = dynamic(DATA.images[:1]), dynamic(DATA.images[:20])
    assert len(one.labels) == len(one.classes) == 1 and asked == ([] if max_batch is None else [7, 7, 6])
    assert torch.equal(more.macs, of_passes(dynamic.prices, more.profiles).macs)
    assert torch.equal(more.passes, (more.profiles >= 0).sum(1)) and len(more.macs_share) == 20
    last = more.profiles.gather(1, more.passes[:, None] - 1)[:, 0]
    assert torch.equal(more.keep_ratios, torch.tensor(NETWORK.keep_ratios)[dynamic.codebook[last]])
    assert sum(asked) == 20
    for copied in (
        pickle.loads(pickle.dumps(one)),
        copy.deepcopy(one),
        replace(one, names=("x",)),
        one.rows(torch.tensor([0])),
    ):
        assert torch.equal(copied.macs, one.macs) and vars(copied).keys() == {each.name for each in fields(one)}
    with pytest.raises(AttributeError, match="'Prediction' object has no attribute 'mac'"):
        _ = one.mac  # type: ignore[attr-defined]


def test_a_row_is_the_prediction_for_one_image_and_is_stored_without_the_others() -> None:
    whole = make(max_passes=2)(DATA.images[:6])
    for index in (0, 5):
        row, expected = whole.row(index), whole.rows(torch.tensor([index]))
        for name in (each.name for each in fields(whole)):
            found, right = getattr(row, name), getattr(expected, name)
            assert torch.equal(found, right) if isinstance(right, torch.Tensor) else found == right, name
        copied = pickle.loads(pickle.dumps(row))
        assert torch.equal(copied.probabilities, expected.probabilities) and int(copied.macs) == int(expected.macs)
        assert copied.probabilities.untyped_storage().nbytes() == copied.probabilities.nbytes
    assert row.row(0) is row
