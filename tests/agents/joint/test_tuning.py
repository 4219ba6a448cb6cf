from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import KINDS, colours, make_centred, make_data, make_elastic, make_levels, make_policy, network
from torch import Tensor, nn

from rlprune.agents.joint.routes import route, shares_going_on
from rlprune.agents.joint.tuning import TuneSettings, _at_least, tune
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import predict_all
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import BundleError, RLPruneError
from rlprune.policies.passes import CostBreakdown
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.training.distillation import cache_teacher_logits, distillation_loss

NETWORK = make_centred()
DATA = make_data(60)
BOOK = sorted_codebook(make_levels(NETWORK, 4, seed=3), Cost(NETWORK))
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 20, "bf16": False, "channels_last": False}
QUICK |= {"padding": 0, "flip": False}


def policy_of(elastic: ElasticCNN = NETWORK, data: ImageSet = DATA, book: Tensor = BOOK, **options: Any) -> Policy:
    return make_policy(elastic, data, book, **options)


def decide(elastic: ElasticCNN, policy: Policy, images: Tensor) -> Tensor:
    return route(elastic, policy, images, CostBreakdown.of(Cost(elastic), policy)).profiles


def deployed(elastic: ElasticCNN, policy: Policy, data: ImageSet = DATA) -> DynamicCNN:
    return DynamicCNN(elastic, policy, data.mean, data.std, data.classes)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("max_passes", [1, 2, 3])
@pytest.mark.parametrize("combine", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_decisions_are_those_of_the_deployed_network(max_passes: int, combine: float, seed: int) -> None:
    policy = policy_of(max_passes=max_passes, combine=combine, seed=seed)
    decisions = decide(NETWORK, policy, DATA.normalised())
    assert torch.equal(decisions, deployed(NETWORK, policy)(DATA.images).profiles)
    assert len(decisions.unique(dim=0)) > 1


def test_these_policies_look_more_than_once() -> None:
    n_passes = [(decide(NETWORK, policy_of(max_passes=3, seed=s), DATA.normalised()) >= 0).sum(1) for s in range(3)]
    assert torch.cat(n_passes).unique().tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_so_they_are_for_every_kind_of_network(kind: str) -> None:
    elastic = make_elastic(kind)
    policy = policy_of(elastic, book=sorted_codebook(make_levels(elastic, 5), Cost(elastic)), max_passes=3)
    expected = deployed(elastic, policy)(DATA.images).profiles
    assert torch.equal(decide(elastic, policy, DATA.normalised()), expected)


def test_a_policy_of_levels_decides_among_its_codebook() -> None:
    policy = policy_of(action="levels", max_passes=2)
    expected = deployed(NETWORK, policy)(DATA.images).profiles
    assert torch.equal(decide(NETWORK, policy, DATA.normalised()), expected)


def ran_profiles(elastic: ElasticCNN, policy: Policy, settings: TuneSettings, **options: Any) -> list[tuple[Any, int]]:
    """Every profile that was trained, and on how many images, step by step."""
    ran: list[tuple[Any, int]] = []

    def note(_: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        assert elastic.training
        ran.append((inputs[1].tolist(), len(inputs[0])))

    with elastic.register_forward_pre_hook(note):
        tune(elastic, policy, DATA, settings, **options)
    return ran


@pytest.mark.parametrize("floor", [5, 12, 30])
def test_a_step_trains_every_profile_on_at_least_the_floor(floor: int) -> None:
    elastic, policy = make_centred(), policy_of(max_passes=2, seed=1)
    before = decide(elastic, policy, DATA.normalised())
    figures: list[dict[str, float]] = []
    one_step = TuneSettings(floor=floor, **QUICK | {"batch_size": 60})
    ran = ran_profiles(elastic, policy, one_step, log=lambda _, f: figures.append(f))
    chose = [int((before == index).any(1).sum()) for index in range(len(BOOK))]
    assert ran == [(profile, max(floor, n)) for profile, n in zip(BOOK.tolist(), chose, strict=True)]
    assert min(chose) < floor < max(chose)
    assert [figures[0][f"profile_{index}"] for index in range(len(BOOK))] == pytest.approx([n / 60 for n in chose])


def test_a_profile_that_nobody_chooses_is_trained_on_other_images() -> None:
    elastic, policy = make_centred(), policy_of(max_passes=1)
    last = policy.network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.0, 5.0, 0.0, 0.0])
    ran = ran_profiles(elastic, policy, TuneSettings(floor=6, **QUICK))
    assert [n for _, n in ran] == [6, 20, 6, 6] * 3


@pytest.mark.parametrize(("n", "expected"), [(0, 3), (2, 3), (5, 5), (8, 8), (9, 8)])
def test_images_are_filled_up_with_others(n: int, expected: int) -> None:
    chosen = torch.tensor([False, True, False, False, True, False, True, False])
    drawn = [_at_least(n, chosen, torch.Generator().manual_seed(seed)) for seed in range(20)]
    for images in drawn:
        assert images[:3].tolist() == [1, 4, 6] and len(images.unique()) == len(images) == expected
    assert len(torch.stack(drawn).sort(1).values.unique(dim=0)) > 1 or n in (0, 2, 8, 9)


def test_the_loss_by_hand() -> None:
    elastic, policy, teacher = make_centred(), policy_of(max_passes=3, seed=1), network("residual", seed=5)
    images, labels = DATA.normalised(), DATA.labels
    decisions, copied = decide(elastic, policy, images), copy.deepcopy(elastic).train()
    copied.stem.eval()
    settings = TuneSettings(floor=2, temperature=3.0, distillation=0.4, **QUICK | {"batch_size": 60})
    with torch.no_grad():
        soft = (teacher(images) / 3).log_softmax(1)
        expected = 0.0
        for index, profile in enumerate(BOOK):
            ran = (decisions == index).any(1)
            assert ran.sum() >= 2  # or random ones would fill up
            loss = distillation_loss(copied(images[ran], profile), labels[ran], soft[ran], 3.0, 0.4)
            expected += float(loss * ran.sum() / 60)
    figures: list[dict[str, float]] = []
    tune(elastic, policy, DATA, settings, teacher=teacher, log=lambda _, f: figures.append(f))
    assert figures[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_network_changes_and_the_policy_does_not() -> None:
    elastic, policy = make_centred(), policy_of(max_passes=2)
    before, trained = {n: v.clone() for n, v in policy.tensors().items()}, policy.train()
    tune(elastic, trained, DATA, TuneSettings(floor=4, **QUICK))
    assert all(torch.equal(value, before[name]) for name, value in trained.tensors().items())
    assert trained.training and not any(p.grad is not None for p in trained.parameters())
    assert not same(elastic, make_centred()) and not any(module.training for module in elastic.modules())


def test_an_interrupted_tuning_that_goes_on_equals_one_that_was_not(tmp_path: Path) -> None:
    policy, settings = policy_of(max_passes=2), TuneSettings(floor=12, views=2, **QUICK | {"epochs": 3})
    whole, first, second = (make_centred() for _ in range(3))
    teacher = cache_teacher_logits(network("residual", seed=5), DATA, settings)
    calls: list[int] = []

    def stop_in_the_third(n_images: int, _: dict[str, float]) -> None:
        calls.append(n_images)
        if len(calls) == 3:
            raise KeyboardInterrupt

    tune(whole, policy, DATA, settings, teacher=teacher)
    with pytest.raises(KeyboardInterrupt):
        tune(first, policy, DATA, settings, teacher=teacher, checkpoint=tmp_path / "t.pt", log=stop_in_the_third)
    assert calls == [60, 120, 180]
    tune(second, policy, DATA, settings, teacher=teacher, checkpoint=tmp_path / "t.pt")
    assert same(second, whole) and not same(second, make_centred())


@pytest.mark.parametrize("max_passes", [1, 3])
def test_tuning_makes_the_dynamic_network_accurate(max_passes: int) -> None:
    data, elastic = colours(100), ElasticCNN.from_model(network("plain"), (3, 16, 16))
    book = sorted_codebook(torch.stack([elastic.uniform(level) for level in (1, 3)]), Cost(elastic))
    policy = make_policy(elastic, data, book, max_passes=max_passes)

    def right() -> float:
        return float((predict_all(deployed(elastic, policy, data), data).labels == data.labels).double().mean())

    before, losses = right(), []
    settings = TuneSettings(floor=10, distillation=0.0, learning_rate=0.05, **QUICK | {"epochs": 20})
    tune(elastic, policy, data, settings, log=lambda _, f: losses.append(f["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    assert before < 0.3 and right() > 0.6


def test_without_a_teacher_the_widest_profile_as_it_was_teaches() -> None:
    alone, taught = make_centred(), make_centred()
    settings = TuneSettings(floor=4, distillation=1.0, **QUICK)
    tune(alone, policy_of(), DATA, settings)
    tune(taught, policy_of(), DATA, settings, teacher=make_centred().slice(NETWORK.full))
    assert same(alone, taught)


def test_a_policy_of_another_network_is_refused() -> None:
    with pytest.raises(BundleError, match="the policy was trained for another network: its"):
        tune(make_elastic("plain"), policy_of(), DATA, TuneSettings(floor=4, **QUICK))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": -1}, "rounds=-1: give a whole number of 0 or more"),
        ({"floor": 1}, "floor=1: give a whole number of 2 or more"),
        ({"floor": 65, "batch_size": 64}, "floor=65, batch_size=64: give a floor of 2 to batch_size"),
        ({"epochs": -1}, "epochs=-1"),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        TuneSettings(**wrong)


@pytest.mark.parametrize("combine", [0.0, 1.0])
def test_what_learns_is_what_is_believed_after_a_pass(combine: float) -> None:
    policy = policy_of(max_passes=3, combine=combine, seed=1)
    routes = route(NETWORK, policy, DATA.normalised(), CostBreakdown.of(Cost(NETWORK), policy))
    found = DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes)(DATA.images)
    assert torch.equal(routes.passes, found.passes) and len(routes.passes.unique()) > 1
    assert torch.allclose(routes.beliefs[:, -1].softmax(1), found.probabilities, atol=1e-5)
    first = torch.stack([NETWORK(DATA.normalised()[[n]], BOOK[p[0]])[0] for n, p in enumerate(routes.profiles)])
    assert torch.allclose(routes.before(torch.arange(60), torch.ones(60).long()), first, atol=1e-4)


def test_as_many_images_go_on_as_of_others() -> None:
    policy = policy_of(max_passes=3, seed=1)
    prices = CostBreakdown.of(Cost(NETWORK), policy)
    images = DATA.normalised()
    told = route(NETWORK, policy, images, prices, (0.5, 0.2))
    assert [int((told.passes > made).sum()) for made in range(3)] == [60, 30, 6]
    assert (told.profiles[:, 1] != told.profiles[:, 0]).all()
    alone = route(NETWORK, policy, images, prices)
    shares = shares_going_on(NETWORK, policy, DATA, prices)
    assert shares is not None
    went = [int((alone.passes > made).sum()) for made in range(3)]
    assert shares == (went[1] / 60, went[2] / went[1])
    assert torch.equal(route(NETWORK, policy, images, prices, shares).profiles, alone.profiles)
    assert shares_going_on(NETWORK, policy_of(action="levels", max_passes=2), DATA, prices) is None


def test_a_first_look_is_weighed_less_where_another_follows() -> None:
    policy = policy_of(max_passes=2, seed=1)
    losses: list[float] = []
    for weight in (1.0, 0.25, 0.0):
        settings = TuneSettings(floor=2, early_weight=weight, **QUICK | {"batch_size": 60})
        tune(make_centred(), policy, DATA, settings, log=lambda _, figures: losses.append(figures["loss"]))
    assert losses[1] == pytest.approx(0.25 * losses[0] + 0.75 * losses[2]) and losses[2] < losses[0]
