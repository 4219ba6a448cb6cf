from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import (
    IMAGE_SHAPE,
    KINDS,
    colours,
    make_data,
    make_elastic,
    make_images,
    make_levels,
    network,
)
from quick import QUICK
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.errors import RLPruneError
from rlprune.metrics import accuracy
from rlprune.profiles.codebook import random_profiles
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import AdaptSettings, SpecialiseSettings, adapt, calibrate
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings


def test_random_profiles_exist_and_cover_the_range_of_cost() -> None:
    elastic = make_elastic("depthwise")
    profiles = torch.stack(random_profiles(elastic, 400, torch.Generator().manual_seed(0)))
    assert torch.equal(elastic.check_levels(profiles), profiles)
    cost = Cost(elastic)
    macs, bounds = cost.of(profiles).macs, cost.of(torch.stack([elastic.min_level, elastic.full])).macs
    assert macs.min() == bounds[0]
    assert macs.max() == bounds[1]
    assert ((macs - bounds[0]) / (bounds[1] - bounds[0])).histc(5, 0, 1).min() > 0.05 * 400


def test_random_profiles_are_those_of_their_generator() -> None:
    elastic = make_elastic("depthwise")
    first, second = (torch.stack(random_profiles(elastic, 5, torch.Generator().manual_seed(3))) for _ in range(2))
    assert torch.equal(first, second)
    assert random_profiles(elastic, 0, torch.Generator()) == []


@pytest.mark.parametrize("name", ["b1.bn1", "b1.bn2"])  # behind the stem, and behind the group of the first
@torch.no_grad()
def test_calibrated_norms_give_what_a_level_s_slice_gives_on_its_own_statistics(name: str) -> None:
    elastic, data = make_elastic("residual"), make_data(32)
    full = elastic.elastic_layers()["b2.bn2"].running_mean[-1].clone()
    calibrate(elastic, data, TrainingSettings(**QUICK), n_batches=1)
    norm = elastic.elastic_layers()[name]
    assert isinstance(norm, ElasticBatchNorm)
    for level in (1, 2, 3):
        small = elastic.slice(elastic.uniform(level))
        features: list[torch.Tensor] = []
        layer = small.get_submodule(f"body.{name}")
        layer.register_forward_pre_hook(lambda _, inputs, features=features: features.append(inputs[0]))
        small(data.normalised(slice(0, 16)))
        # The norm before it had the batch's own variance then, and has now the unbiased estimate that norms keep.
        mean = features[0].mean((0, 2, 3))
        assert torch.allclose(norm.running_mean[level, : len(mean)], mean, atol=1e-3)
    assert torch.equal(elastic.elastic_layers()["b2.bn2"].running_mean[-1], full)
    assert not any(layer.training for layer in elastic.modules())


@torch.no_grad()
def test_without_a_ratio_of_zero_level_0_is_trained_like_the_others() -> None:
    elastic = ElasticCNN.from_model(network("residual"), IMAGE_SHAPE, keep_ratios=(0.5, 1))
    norm = elastic.elastic_layers()["b1.bn2"]
    before = norm.running_mean.clone()
    assert elastic.narrowest == 0
    calibrate(elastic, make_data(16), TrainingSettings(**QUICK))
    assert not torch.equal(norm.running_mean[0], before[0])
    assert torch.equal(norm.running_mean[1], before[1])


def test_adapting_makes_narrow_profiles_accurate() -> None:
    data, model = colours(200), network("plain")
    pretrain(model, data, TrainingSettings(epochs=3, learning_rate=0.05, **QUICK))
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    profiles = [elastic.uniform(level) for level in (1, 2, 4)]

    def accuracies() -> list[float]:
        return [accuracy(lambda images, p=profile: elastic(images, p), data) for profile in profiles]

    before = accuracies()
    figures: list[dict[str, float]] = []
    adapt(elastic, data, AdaptSettings(epochs=12, learning_rate=0.02, **QUICK), log=lambda _, f: figures.append(f))
    assert before[0] < 0.9 < min(accuracies())
    assert figures[0].keys() == {"loss", "largest", "smallest", "learning_rate"}


def drawn_profiles(elastic: ElasticCNN, settings: AdaptSettings, n: int = 64, **options: Any) -> list[list[int]]:
    """The profiles of an adaptation, step by step."""
    drawn: list[list[int]] = []

    def note(_: nn.Module, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        if elastic.training:  # not while it calibrates
            drawn.append(inputs[1].tolist())

    with elastic.register_forward_pre_hook(note):
        adapt(elastic, make_data(n), settings, **options)
    return drawn


def test_the_sandwich_is_the_largest_and_the_smallest_and_random_ones() -> None:
    elastic = make_elastic("residual")
    rows = torch.tensor(drawn_profiles(elastic, AdaptSettings(epochs=2, n_random=3, **QUICK))).view(8, 5, 3)
    assert torch.equal(rows[:, 0], elastic.full.expand(8, -1))
    assert torch.equal(rows[:, 1], elastic.uniform(1).expand(8, -1))
    assert len(rows[:, 2:].flatten(0, 1).unique(dim=0)) > 12
    alone = AdaptSettings(epochs=1, n_random=2, sandwich=False, **QUICK)
    assert len(drawn_profiles(elastic, alone)) == 2 * 4


def test_with_a_codebook_only_its_profiles_are_drawn_as_often_as_their_shares_say() -> None:
    elastic = make_elastic("residual")
    codebook = torch.tensor([[1, 0, 1], [2, 2, 1], [2, 3, 4]])
    for shares, chances in (((), (1 / 3, 1 / 3, 1 / 3)), ((1, 0, 3), (0.25, 0, 0.75)), ((0.0, 0.1, 0.0), (0, 1, 0))):
        settings = SpecialiseSettings(epochs=10, n_random=10, sandwich=False, shares=shares, **QUICK)
        drawn = drawn_profiles(elastic, settings, n=32, codebook=codebook)
        counts = [drawn.count(profile) for profile in codebook.tolist()]
        assert sum(counts) == len(drawn) == 10 * 10 * 2
        for count, chance in zip(counts, chances, strict=True):
            assert abs(count - 200 * chance) <= 4 * (200 * chance * (1 - chance)) ** 0.5


@pytest.mark.parametrize("n_random", [0, 1])
def test_the_smallest_of_a_codebook_is_its_first(n_random: int) -> None:
    elastic, codebook = make_elastic("residual"), torch.tensor([[1, 0, 1], [2, 2, 1]])
    settings = SpecialiseSettings(epochs=1, n_random=n_random, shares=(0, 1), **QUICK)
    drawn = drawn_profiles(elastic, settings, codebook=codebook)
    assert drawn == [[4, 4, 4], [1, 0, 1], [2, 2, 1]][: 2 + n_random] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": (1.0,)}, r"shares=\(1\.0,\): the codebook has 0 profiles; give one for each, or none"),
        ({"codebook": [[4, 4, 4]], "shares": (1, 1)}, r"shares=\(1\.0, 1\.0\): the codebook has 1 profiles"),
        ({"codebook": [[4, 4, 4]] * 2, "shares": (2, -1)}, r"shares=\(2, -1\): give numbers of 0 or more, not"),
        ({"codebook": [[4, 4, 4]] * 2, "shares": (0, 0)}, r"shares=\(0, 0\): give numbers of 0"),
        ({"codebook": [[4, 4, 4]] * 2, "shares": (1, float("nan"))}, r"shares=\(1, nan\): give numbers of 0"),
        ({"codebook": [[4, 4]]}, r"levels have shape \(1, 2\); this network has 3 groups"),
        ({"codebook": [4, 4, 4]}, r"codebook has shape \(3,\); \(K, G\) with K from 1 to 16 is needed"),
    ],
)
def test_codebooks_and_shares_that_do_not_fit_are_named_and_change_nothing(options: Any, message: str) -> None:
    elastic = make_elastic("residual")
    before = {name: value.clone() for name, value in elastic.state_dict().items()}
    codebook = torch.tensor(options["codebook"]) if "codebook" in options else None
    with pytest.raises(RLPruneError, match=message):
        settings = SpecialiseSettings(epochs=1, shares=options.get("shares", ()), **QUICK)
        adapt(elastic, make_data(16), settings, codebook=codebook)
    assert all(torch.equal(value, before[name]) for name, value in elastic.state_dict().items())


def test_specialising_to_a_codebook_makes_its_profiles_accurate() -> None:
    data, model = colours(100), network("plain")
    pretrain(model, data, TrainingSettings(epochs=3, learning_rate=0.05, **QUICK))
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    codebook = make_levels(elastic, 1, seed=3)
    figures: list[dict[str, float]] = []
    settings = AdaptSettings(epochs=6, learning_rate=0.02, n_random=1, sandwich=False, **QUICK)
    adapt(elastic, data, settings, codebook=codebook, log=lambda _, f: figures.append(f))
    assert accuracy(lambda images: elastic(images, codebook[0]), data) > 0.9
    assert figures[0].keys() == {"loss", "learning_rate"}


def test_the_teacher_is_not_trained() -> None:
    elastic, teacher = make_elastic("residual"), network("residual", seed=5).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    adapt(elastic, make_data(20), AdaptSettings(epochs=1, **QUICK), teacher=teacher)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not elastic.training


def test_bfloat16_and_channels_last_train_too() -> None:
    elastic = make_elastic("residual")
    adapt(elastic, make_data(20), AdaptSettings(epochs=1, batch_size=10))
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in elastic.parameters())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_pass_under_a_profile_does_the_work_of_its_slice(kind: str) -> None:
    elastic, images = make_elastic(kind), make_images(1)
    for profile in (elastic.uniform(0), elastic.uniform(1), elastic.full):
        with FlopCounterMode(display=False) as counter:
            elastic(images, profile)
        assert counter.get_total_flops() == 2 * Cost(elastic).of(profile).macs


@pytest.mark.parametrize("kind", ["plain", "residual", "concat"])  # FlopCounterMode miscounts depthwise gradients
def test_a_step_under_a_profile_does_the_work_of_its_slice(kind: str) -> None:
    """Forward and backward together are three times the forward, but for the stem, whose input needs no gradient."""
    elastic, images = make_elastic(kind), make_images(1)
    cost = Cost(elastic)
    for profile in (elastic.uniform(1), elastic.full):
        with FlopCounterMode(display=False) as counter:
            elastic(images, profile).sum().backward()
        assert counter.get_total_flops() == 2 * (3 * cost.of(profile).macs - cost.stem.macs)
