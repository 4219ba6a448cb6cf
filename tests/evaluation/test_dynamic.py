from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import make_centred, make_data, make_levels, make_policy, relative_error
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits, predict_all
from rlprune.elastic.cnn import ElasticCNN
from rlprune.evaluation.controls import shuffled_accuracy
from rlprune.evaluation.dynamic import evaluate
from rlprune.evaluation.static import evaluate_dense
from rlprune.metrics import accuracy, wilson_interval
from rlprune.profiles.codebook import random_profiles, sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.search import search_profiles

NETWORK = make_centred()


@torch.no_grad()
def make_images_of_use(n: int, seed: int) -> ImageSet:
    """Images of noise; every other label is what the whole network says."""
    data = make_data(n, seed)
    said = NETWORK(data.normalised(), NETWORK.full).argmax(1)
    return replace(data, labels=torch.where(torch.arange(n) % 2 == 0, said, data.labels))


TEST, CHOOSING = make_images_of_use(60, 0), make_images_of_use(30, 1)
COST = Cost(NETWORK)
BOOK = sorted_codebook(make_levels(NETWORK, 5, seed=3), COST)
QUICK = {"n_candidates": 8}


def make(max_passes: int = 1, always: int | None = None, combine: float = 0.0) -> DynamicCNN:
    """A dynamic network; its policy picks one profile for all images if told to."""
    policy = make_policy(NETWORK, TEST, BOOK, max_passes=max_passes, seed=1, combine=combine)
    if always is not None:
        last = policy.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        last.bias.data = 1.0 * (torch.arange(len(last.bias)) == always)
    return DynamicCNN(NETWORK, policy, TEST.mean, TEST.std, TEST.classes)


@torch.no_grad()
def right(profiles: Tensor, network: ElasticCNN = NETWORK) -> Tensor:
    """Which profiles (rows) classify which test images (columns) correctly, by masks."""
    predicted = [network(TEST.normalised(), profile.expand(len(TEST), -1)).argmax(1) for profile in profiles]
    return torch.stack(predicted) == TEST.labels


def share(macs: Tensor) -> float:
    return float(macs.double().mean() / COST.dense.macs)


@pytest.mark.parametrize("always", range(4))
def test_a_policy_that_picks_one_profile_is_that_profile_plus_its_own_cost(always: int) -> None:
    dynamic = make(always=always)
    results = evaluate(dynamic, TEST, CHOOSING, **QUICK)
    cost = COST.of(BOOK[always])
    assert results.accuracy == int(right(BOOK[always][None]).sum()) / 60
    assert results.controls.shuffled == pytest.approx(results.accuracy, rel=1e-12)
    assert results.macs_cut == pytest.approx(1 - share(cost.macs + dynamic.prices.decision.macs))
    whole = int(COST.dense.params)
    assert results.params_cut == pytest.approx(1 - int(cost.params + dynamic.prices.decision.params) / whole)
    assert (results.distinct_profiles, results.mean_passes) == (1, 1.0)


def test_the_figures_are_those_of_the_predictions() -> None:
    dynamic = make(3)
    results, predicted = evaluate(dynamic, TEST, CHOOSING, **QUICK), dynamic(TEST.images)
    used = predicted.profiles[predicted.profiles >= 0]
    assert results.accuracy == (predicted.labels == TEST.labels).double().mean()
    assert results.macs_cut == pytest.approx(1 - share(predicted.macs))
    assert results.mean_passes == pytest.approx(predicted.passes.double().mean()) and results.mean_passes > 1
    assert results.distinct_profiles == len(used.unique()) > 1
    assert sum(results.runs_per_image) == pytest.approx(results.mean_passes)


def test_every_promised_key_is_there() -> None:
    results = evaluate(make(), TEST, CHOOSING, **QUICK)
    keys = {"accuracy", "dense_accuracy", "macs_cut", "params_cut", "n_images", "distinct_profiles", "mean_passes"}
    assert keys | {"accuracy_interval", "hardware", "threads", "dtype", "date", "seed"} <= results.to_json().keys()
    every = {"uniform", "random", "best_static", "shuffled", "cascade", "oracle"}
    assert results.controls.to_json().keys() == results.controls_macs_cut.to_json().keys() == every
    assert results.n_images == 60
    assert results.dense_accuracy == right(NETWORK.full[None]).double().mean()
    assert evaluate_dense(NETWORK.slice(NETWORK.full), TEST).accuracy == results.dense_accuracy


def test_the_uniform_control_mixes_two_neighbouring_ratios() -> None:
    dynamic = make()
    levels = torch.stack([NETWORK.uniform(level) for level in range(1, 5)])
    costs, shares = COST.of(levels).macs / COST.dense.macs, right(levels).double().mean(1)
    spent = share(dynamic(TEST.images).macs)
    above = int((costs > spent).nonzero()[0])
    assert above > 0
    weight = (spent - costs[above - 1]) / (costs[above] - costs[above - 1])
    expected = (1 - weight) * shares[above - 1] + weight * shares[above]
    assert evaluate(dynamic, TEST, CHOOSING, **QUICK).controls.uniform == pytest.approx(float(expected))


def test_every_ratio_above_zero_is_a_uniform_control() -> None:
    model = NETWORK.slice(NETWORK.full)
    for ratios, n_points in (((0.5, 1.0), 2), ((0.0, 0.5, 1.0), 2), ((0.25, 0.5, 1.0), 3)):
        network = ElasticCNN.from_model(model, NETWORK.image_shape, keep_ratios=ratios)
        policy = make_policy(network, TEST, network.full[None])
        dynamic = DynamicCNN(network, policy, TEST.mean, TEST.std, TEST.classes)
        assert len(evaluate(dynamic, TEST, CHOOSING, **QUICK).frontier.uniform) == n_points


def random_means() -> tuple[list[float], list[float]]:
    """Mean costs and accuracies of the two random profiles nearest to each of eight costs, in even ratios."""
    drawn = torch.stack(random_profiles(NETWORK, 2048, torch.Generator().manual_seed(0))).unique(dim=0)
    costs = (COST.of(drawn).macs / COST.dense.macs).tolist()
    shares = right(drawn).double().mean(1).tolist()
    means = []
    for k in range(8):
        wanted = min(costs) * (max(costs) / min(costs)) ** (k / 7)
        nearest = sorted(range(len(costs)), key=lambda i: abs(costs[i] - wanted))[:2]
        means.append([sum(of[i] for i in nearest) / 2 for of in (costs, shares)])
    return [cost for cost, _ in means], [share for _, share in means]


def test_the_random_control_mixes_the_means_of_random_profiles_around_its_cost() -> None:
    dynamic = make(always=3)
    costs, shares = random_means()
    spent = share(dynamic(TEST.images).macs)
    assert costs[0] < spent < costs[-1] and len(set(shares)) > 1
    results = evaluate(dynamic, TEST, CHOOSING, **QUICK)
    assert results.controls.random == pytest.approx(float(np.interp(spent, costs, shares)))
    assert results.controls_macs_cut.random == results.macs_cut


def test_the_best_static_control_is_chosen_by_other_images_than_it_is_measured_on() -> None:
    dynamic = make()
    found = search_profiles(NETWORK, CHOOSING, 20, also=dynamic.codebook)
    best = found.profiles[found.frontier()]
    costs, shares = COST.of(best).macs / COST.dense.macs, right(best).double().mean(1)
    expected = np.interp(share(dynamic(TEST.images).macs), costs, shares)
    actual = evaluate(dynamic, TEST, CHOOSING, n_candidates=20).controls.best_static
    assert actual == pytest.approx(float(expected))


def test_on_the_images_it_was_chosen_by_the_best_static_mixture_beats_the_uniform_one() -> None:
    controls = evaluate(make(), TEST, TEST, n_candidates=20).controls
    assert controls.best_static >= controls.uniform


def test_shuffled_is_the_mean_over_all_permutations() -> None:
    few, dynamic = TEST.subset(slice(0, 6)), make()
    predicted, is_right = dynamic(few.images), right(BOOK)[:, :6]
    decisions = predicted.profiles[:, 0]
    every = [is_right[decisions[list(order)], torch.arange(6)] for order in itertools.permutations(range(6))]
    assert len(decisions.unique()) > 1
    shuffled = shuffled_accuracy(predicted, codebook_logits(dynamic, few), few.labels, dynamic.policy.observer)
    assert shuffled == pytest.approx(float(torch.stack(every).double().mean()))


@torch.no_grad()
def test_shuffled_decisions_combine_their_passes_where_the_policy_does() -> None:
    few, dynamic = TEST.subset(slice(0, 20)), make(3, combine=1.0)
    predicted = dynamic(few.images)
    logits = torch.stack([dynamic.slice(profile)(few.normalised()) for profile in range(len(BOOK))])
    shares = [torch.tensor([1.0]), torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.25, 0.5])]
    answers = torch.stack(
        [
            torch.einsum("n,nbc->bc", shares[int(n) - 1], logits[row[: int(n)]])
            for row, n in zip(predicted.profiles, predicted.passes, strict=True)
        ]
    )
    is_right = answers.argmax(2) == few.labels  # decisions (rows) given to images (columns)
    assert torch.equal(is_right.diagonal(), predicted.labels == few.labels)
    expected = float(is_right.double().mean())
    said = codebook_logits(dynamic, few, batch_size=7)
    assert relative_error(said, logits) < 1e-4
    observer = dynamic.policy.observer
    assert shuffled_accuracy(predicted, said, few.labels, observer) == pytest.approx(expected)
    assert shuffled_accuracy(predicted, said, few.labels, replace(observer, combine=0.0)) != pytest.approx(expected)


def test_shuffled_weighs_each_profile_by_how_often_it_decides() -> None:
    dynamic = make(3)
    predicted = dynamic(TEST.images)
    last = predicted.profiles.gather(1, predicted.passes[:, None] - 1)[:, 0]
    weights = last.bincount(minlength=len(BOOK)) / len(TEST)
    expected = float((weights * right(BOOK).double().mean(1)).sum())
    assert evaluate(dynamic, TEST, CHOOSING, **QUICK).controls.shuffled == pytest.approx(expected)


def test_predictions_in_batches_are_those_of_the_whole() -> None:
    dynamic = make(2)
    parts, whole = predict_all(dynamic, TEST, batch_size=7), dynamic(TEST.images)
    for name in ("labels", "profiles", "passes", "params", "macs"):
        assert torch.equal(getattr(parts, name), getattr(whole, name)), name


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_wilson_s_interval_at_its_ends_and_in_the_middle(n: int) -> None:
    z = 1.959964
    assert wilson_interval(0, n) == pytest.approx((0, z * z / (n + z * z)), abs=1e-12)
    assert wilson_interval(n, n) == pytest.approx((n / (n + z * z), 1), abs=1e-12)
    assert wilson_interval(n, 2 * n) == pytest.approx([0.5 + s * z / math.sqrt(2 * n + z * z) / 2 for s in (-1, 1)])


def test_wilson_s_interval_holds_the_shares_that_a_z_test_does_not_refuse() -> None:
    for end in wilson_interval(83, 100):
        assert abs(0.83 - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / 100))


def test_accuracy_is_what_the_dense_network_given_says() -> None:
    def first_class(images: Tensor) -> Tensor:
        return torch.eye(5)[:1].expand(len(images), -1)

    expected = float((TEST.labels == 0).double().mean())
    assert evaluate(make(), TEST, CHOOSING, dense=first_class, **QUICK).dense_accuracy == expected
    assert accuracy(first_class, TEST) == expected


def test_these_networks_differ_in_accuracy() -> None:
    assert len(right(BOOK).double().mean(1).unique()) >= 3


@pytest.mark.parametrize("with_dense", [False, True])
def test_other_normalisation_of_the_sets_changes_nothing(with_dense: bool) -> None:
    dynamic = make(2)
    dense = NETWORK.slice(NETWORK.full) if with_dense else None
    other = [replace(part, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7)) for part in (TEST, CHOOSING)]
    expected = evaluate(dynamic, TEST, CHOOSING, dense=dense, **QUICK)
    assert evaluate(dynamic, *other, dense=dense, **QUICK) == expected
    assert expected.dense == ("original" if with_dense else "full width")
    assert expected.dense_accuracy == right(NETWORK.full[None]).double().mean()


@pytest.mark.parametrize("max_passes", [1, 2, 3])
def test_controls_cost_what_the_policy_costs(max_passes: int) -> None:
    results = evaluate(make(max_passes), TEST, CHOOSING, **QUICK)
    assert 0 < results.macs_cut < 0.7
    cuts = results.controls_macs_cut.to_json()
    for name in ("cascade", "oracle"):  # which may need less for all that they can get right
        assert cuts.pop(name) >= results.macs_cut - 1e-9
    assert cuts == dict.fromkeys(cuts, results.macs_cut)


def test_a_control_that_cannot_be_as_dear_says_what_it_costs() -> None:
    policy = make_policy(NETWORK, TEST, NETWORK.full[None])
    dynamic = DynamicCNN(NETWORK, policy, TEST.mean, TEST.std, TEST.classes)
    results = evaluate(dynamic, TEST, CHOOSING, **QUICK)
    cuts = results.controls_macs_cut
    every = torch.tensor(list(itertools.product(range(5), repeat=3)))
    dearest = COST.of(every).macs.double().sort().values[-2:].mean() / COST.dense.macs
    assert results.macs_cut == cuts.shuffled == pytest.approx(-float(dynamic.prices.decision.macs / COST.dense.macs))
    assert (cuts.uniform, cuts.random) == (0, pytest.approx(1 - float(dearest)))
    assert cuts.best_static == 1 - max(macs for macs, _ in results.frontier.static)


def test_an_ordinary_network_has_no_controls() -> None:
    results = evaluate_dense(NETWORK.slice(NETWORK.full), TEST)
    assert (results.dense, results.controls, results.controls_macs_cut) == ("original", {}, {})
