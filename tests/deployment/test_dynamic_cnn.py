from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from centred import BOOK, DATA, NETWORK, make
from nets import IMAGE_SHAPE, KINDS, make_elastic, make_levels, make_policy, relative_error
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.prediction import Prediction
from rlprune.envs.sweep import Sweep, run_sweep
from rlprune.envs.world import World
from rlprune.errors import BundleError, DataError, NotFiniteError, RLPruneError
from rlprune.evaluation.dynamic import mean_reward
from rlprune.policies.actions import ActionKind
from rlprune.policies.policy import Policy, check_fit
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency

passes = pytest.mark.parametrize("max_passes", [1, 2, 3])
combines = pytest.mark.parametrize("combine", [0.0, 0.5])


def swept(dynamic: DynamicCNN, data: ImageSet = DATA, **options: Any) -> Sweep:
    """What the environment says of the same policy."""
    policy = dynamic.policy
    world = World(
        dynamic.elastic,
        data,
        action=policy.actions.kind,
        codebook=policy.actions.codebook,
        max_passes=policy.observer.max_passes,
        combine=policy.observer.combine,
        policy_cost=tuple(int(amount) for amount in dynamic.prices.decision),  # type: ignore[arg-type]
        observer=policy.observer,
        **options,
    )
    with torch.no_grad():
        return run_sweep(world, lambda seen: policy.actions.greedy(policy.network(torch.from_numpy(seen))).numpy())


def check_equal(dynamic: DynamicCNN, predicted: Prediction, expected: Sweep) -> None:
    """Image by image the same profiles, passes, predictions and cost."""
    ran = (predicted.profiles >= 0)[..., None]
    assert torch.equal(torch.where(ran, dynamic.codebook[predicted.profiles], -1), expected.levels)
    assert torch.equal(predicted.passes, expected.passes)
    assert torch.equal(predicted.labels == DATA.labels[: len(expected.correct)], expected.correct)
    torch.testing.assert_close(predicted.params / dynamic.prices.dense.params, expected.params, rtol=1e-6, atol=0)
    torch.testing.assert_close(predicted.macs / dynamic.prices.dense.macs, expected.macs, rtol=1e-6, atol=0)


@passes
@combines
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_environment_under_the_same_policy(max_passes: int, combine: float, seed: int) -> None:
    dynamic = make(max_passes, seed, combine=combine)
    check_equal(dynamic, dynamic(DATA.images), swept(dynamic))


@passes
@combines
@pytest.mark.parametrize("n_images", [1, 60])
@pytest.mark.parametrize("seed", range(3))
def test_who_sees_no_features_is_not_asked_before_the_first_pass(
    max_passes: int, combine: float, n_images: int, seed: int
) -> None:
    dynamic, asked = make(max_passes, seed, pool=0, combine=combine), []
    expected = swept(dynamic, DATA.subset(slice(0, n_images)))
    dynamic.folded.register_forward_hook(lambda _, seen, said: asked.append(len(seen[0])))
    check_equal(dynamic, dynamic(DATA.images[:n_images]), expected)
    assert n_images == 1 or len(asked) == min(int(expected.passes.max()), max_passes - 1)
    assert dynamic.first is not None and make(max_passes).first is None
    assert torch.equal(expected.levels[:, 0], dynamic.codebook[dynamic.first].expand(n_images, -1))


def test_such_policies_differ_in_where_they_begin() -> None:
    assert len({make(2, seed, pool=0).first for seed in range(3)}) > 1


LATENCY = Latency(
    keep_ratios=NETWORK.keep_ratios,
    batch=1,
    stem=0.25,
    decision=0.125,
    dense=3.0,
    base=0.5,
    table=((0.0, 0.1, 0.2, 0.3, 0.4), (0.0, 0.0, 0.0, 0.5, 0.5), (0.0, 0.2, 0.2, 0.4, 0.8)),
    per_mac=0.0,
    errors={"groups": 0.0, "macs": 0.1},
    measured_with={},
)


@passes
@pytest.mark.parametrize("paid", ["params", "macs", LATENCY])
def test_its_mean_reward_is_what_the_environment_pays(max_passes: int, paid: str | Latency) -> None:
    dynamic = make(max_passes, seed=2)
    expected = swept(dynamic, penalty=0.7, cost=paid, control_variate=False).rewards.mean()
    assert mean_reward(dynamic, DATA, 0.7, paid) == pytest.approx(float(expected), abs=1e-6)


def test_a_reward_is_paid_in_something_known() -> None:
    with pytest.raises(RLPruneError, match="paid is 'latency'; allowed are params, macs, and a Latency"):
        mean_reward(make(), DATA, 0.7, "latency")


@pytest.mark.parametrize("max_passes", [2, 3])
def test_these_policies_accept_and_choose_again_and_use_most_profiles(max_passes: int) -> None:
    predicted = [make(max_passes, seed)(DATA.images) for seed in range(4)]
    profiles = torch.cat([one.profiles for one in predicted])
    assert len(profiles[profiles >= 0].unique()) >= 5
    assert torch.cat([one.passes for one in predicted]).unique().tolist() == list(range(1, max_passes + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_so_it_is_for_every_kind_of_network(kind: str) -> None:
    network = make_elastic(kind)
    dynamic = make(2, 1, network, sorted_codebook(make_levels(network, 4), Cost(network)))
    check_equal(dynamic, dynamic(DATA.images), swept(dynamic))


@pytest.mark.parametrize("action", ["levels", "ratios"])
@passes
@combines
def test_a_codebook_of_all_that_is_chosen_loses_nothing(action: ActionKind, max_passes: int, combine: float) -> None:
    few = DATA.subset(slice(0, 5))  # which can ask for no more than 15 profiles
    policy = make_policy(NETWORK, DATA, BOOK, action, max_passes, scale=0.5, combine=combine)
    expected = swept(DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes), few)
    rows = expected.levels.flatten(0, 1)
    policy.codebook = sorted_codebook(rows[rows[:, 0] >= 0], Cost(NETWORK))
    assert len(policy.codebook) >= 4
    dynamic = DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes)
    check_equal(dynamic, dynamic(few.images), expected)


@passes
@combines
@pytest.mark.parametrize("pool", [0, 1])
def test_one_image_alone_is_the_same_image_in_any_batch(max_passes: int, combine: float, pool: int) -> None:
    dynamic = make(max_passes, seed=2, combine=combine, pool=pool)
    together = dynamic(DATA.images)
    for indices in ([7], [3, 7], list(range(20, -1, -1))):
        some = dynamic(DATA.images[indices])
        for name in ("labels", "profiles", "passes", "params", "macs", "keep_ratios"):
            assert torch.equal(getattr(some, name), getattr(together, name)[indices]), name
        assert relative_error(some.probabilities, together.probabilities[indices]) < 1e-5


def test_however_many_run_at_once_all_images_are_predicted_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamic, ran = make(2), []
    expected = dynamic(DATA.images)
    run = DynamicCNN._run
    monkeypatch.setattr(DynamicCNN, "_run", lambda self, images: ran.append(len(images)) or run(self, images))
    for max_batch, parts in ((25, [25, 25, 10]), (60, [60]), (1000, [60]), (None, [60])):
        policy, ran[:] = dynamic.policy, []
        few = DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes, max_batch=max_batch)
        found = few(DATA.images)
        assert ran == parts
        for name in ("labels", "profiles", "keep_ratios", "passes", "params", "macs"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert relative_error(found.probabilities, expected.probabilities) < 1e-5
    for room, parts in ((4 * 40 * math.prod(NETWORK.feature_shape), [40, 20]), (1, [16, 16, 16, 12])):
        monkeypatch.setattr("rlprune.deployment.dynamic_cnn.MOST_KEPT", room)
        ran.clear()
        make()(DATA.images)
        assert ran == parts
    with pytest.raises(RLPruneError, match="max_batch is 0; 1 or more images, or None, is needed"):
        DynamicCNN(NETWORK, dynamic.policy, DATA.mean, DATA.std, DATA.classes, max_batch=0)


@pytest.mark.parametrize("send", [lambda sent: pickle.loads(pickle.dumps(sent)), copy.deepcopy, copy.copy])
def test_what_is_pickled_or_copied_predicts_alike(send: Callable[[DynamicCNN], DynamicCNN]) -> None:
    dynamic = make(max_passes=2)
    dynamic.metadata = {"made": "here"}
    images = DATA.images
    again = send(dynamic)
    assert torch.equal(again(images).probabilities, dynamic(images).probabilities)
    assert torch.equal(again(images[:1]).macs, dynamic(images[:1]).macs)
    assert (again.metadata, again.penalty) == (dynamic.metadata, dynamic.penalty)
    assert again.elastic is not dynamic.elastic or again.slices is dynamic.slices


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(RLPruneError, match=r"device='nowhere': it cannot be used here \(.*\); cpu always can"):
        DynamicCNN(NETWORK, make().policy, DATA.mean, DATA.std, DATA.classes, "nowhere")


@pytest.mark.parametrize("images", [1, 3])
def test_logits_that_overflow_the_number_format_are_no_prediction(images: int) -> None:
    network = copy.deepcopy(NETWORK)
    head = [layer for layer in network.body.modules() if isinstance(getattr(layer, "bias", None), torch.Tensor)][-1]
    with torch.no_grad():
        head.bias += 1e5  # all logits alike: the same labels in float32, infinity in float16
    whole = make(network=network)
    assert torch.equal(whole(DATA.images[:images]).labels, make()(DATA.images[:images]).labels)
    half = DynamicCNN(network, whole.policy, DATA.mean, DATA.std, DATA.classes, dtype=torch.float16)
    message = r"logits are not finite in float16; float16 ends at 65504; compute in bfloat16 or float32"
    with pytest.raises(NotFiniteError, match=message):
        half(DATA.images[:images])


def test_a_network_may_compute_in_half_precision() -> None:
    dynamic = make(2)
    half = DynamicCNN(NETWORK, dynamic.policy, DATA.mean, DATA.std, DATA.classes, dtype=torch.bfloat16)
    expected, found = dynamic(DATA.images), half(DATA.images)
    assert found.probabilities.dtype == torch.float32
    same = (found.profiles == expected.profiles).all(1)  # a decision that was close may be another one
    assert same.double().mean() > 0.8
    assert 0 < relative_error(found.probabilities[same], expected.probabilities[same]) < 0.1
    assert torch.equal(found.macs, half.prices.of_passes(found.profiles).macs)
    with pytest.raises(RLPruneError, match=r"dtype is torch\.int8; allowed: torch\.float32, torch\.bfloat16"):
        DynamicCNN(NETWORK, dynamic.policy, DATA.mean, DATA.std, DATA.classes, dtype=torch.int8)


@pytest.mark.parametrize(
    "same",
    [
        lambda images: images.float() / 255,
        lambda images: images.double() / 255,
        lambda images: images.contiguous(memory_format=torch.channels_last),
        lambda images: images.repeat(1, 1, 1, 2)[..., :16],
    ],
)
def test_bytes_and_floats_in_any_layout_agree(same: Callable[[Tensor], Tensor]) -> None:
    dynamic = make(2, seed=1)
    predicted, other = dynamic(DATA.images), dynamic(same(DATA.images))
    assert torch.equal(predicted.profiles, other.profiles) and torch.equal(predicted.labels, other.labels)
    assert relative_error(other.probabilities, predicted.probabilities) < 1e-5


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(IMAGE_SHAPE), r"shape \(3, 16, 16\); \(B, 3, 16, 16\) with B >= 1 is needed"),
        (torch.zeros(2, 1, 16, 16), r"shape \(2, 1, 16, 16\); \(B, 3, 16, 16\) with B >= 1"),
        (torch.zeros(2, 3, 16, 17), r"shape \(2, 3, 16, 17\)"),
        (torch.zeros(0, 3, 16, 16), r"shape \(0, 3, 16, 16\); \(B, 3, 16, 16\) with B >= 1"),
        (
            torch.zeros(2, 3, 16, 16, dtype=torch.int64),
            r"torch\.int64; give uint8 in \[0, 255\] .* or float in \[0, 1\]",
        ),
        (torch.full((2, 3, 16, 16), 2.0), r"float values from 2 to 2; give values in \[0, 1\]"),
        (torch.full((2, 3, 16, 16), torch.nan), r"float values from nan to nan; give values in \[0, 1\]"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()(images)


def changed(**change: Any) -> Policy:
    policy = make_policy(NETWORK, DATA, BOOK)
    return Policy.from_json(policy.to_json() | change, policy.tensors())


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            changed(keep_ratios=(0.0, 0.2, 0.5, 0.75, 1.0)),
            r"its keep ratios are \(0\.0, 0\.2, .*, the network's \(0\.0, 0\.25",
        ),
        (changed(min_level=[1, 0, 0]), r"its lowest levels are \[1, 0, 0\], the network's \[0, 0, 0\]"),
        (changed(pool=2), r"its features are 16, the network's 64"),
    ],
)
def test_a_policy_for_another_network_is_refused(policy: Policy, message: str) -> None:
    with pytest.raises(BundleError, match=f"the policy was trained for another network: {message}"):
        DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes)


def test_a_codebook_for_another_network_is_refused() -> None:
    policy = make_policy(NETWORK, DATA, BOOK, action="levels")
    for codebook, message in ((BOOK + 4, "level .* does not exist"), (BOOK[:, :2], r"levels have shape \(\d, 2\)")):
        policy.codebook = codebook
        with pytest.raises(BundleError, match=f"the policy was trained for another network: {message}"):
            DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, DATA.classes)


def test_a_policy_or_names_for_another_number_of_classes_are_refused() -> None:
    seven = make_policy(NETWORK, replace(DATA, classes=tuple("abcdefg")), BOOK)
    five = make_policy(NETWORK, DATA, BOOK)
    assert len(seven.observer.mean) == len(five.observer.mean)
    for policy, classes, message in (
        (seven, tuple("abcdefg"), "its outputs are 7, the network's 5"),
        (seven, DATA.classes, "its outputs are 7, the network's 5"),
        (five, tuple("abcd"), "its classes are 5, the network's 4"),
    ):
        with pytest.raises(BundleError, match=f"the policy was trained for another network: {message}"):
            check_fit(NETWORK, policy, classes)
        with pytest.raises(BundleError, match=message):
            DynamicCNN(NETWORK, policy, DATA.mean, DATA.std, classes)
    check_fit(NETWORK, five, DATA.classes)
