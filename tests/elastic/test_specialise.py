"""Networks specialised to a codebook: norms of their own for each profile, then whole bodies."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from nets import KINDS, make_data, make_elastic, make_images, make_levels, make_policy, relative_error
from torch import Tensor

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import LevelsError
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.storage.structure import describe, rebuild
from rlprune.training.adaptation import SpecialiseSettings, adapt, calibrate
from rlprune.training.run import _with_decay

kinds = pytest.mark.parametrize("kind", KINDS)
ONE_EACH = SpecialiseSettings(epochs=1, batch_size=8, n_random=1, sandwich=False, padding=1)


def specialised(kind: str) -> ElasticCNN:
    """Three profiles, the widest among them; others remain that are none of them."""
    elastic = make_elastic(kind)
    elastic.specialise(codebook_of(elastic))
    return elastic


def codebook_of(elastic: ElasticCNN) -> Tensor:
    levels = torch.cat([make_levels(elastic, 2, seed=3), elastic.full[None]])
    return sorted_codebook(levels, Cost(elastic))


def separated(kind: str) -> ElasticCNN:
    """Bodies that differ from the shared one, and from each other."""
    elastic = specialised(kind)
    elastic.separate()
    for seed, parameter in enumerate(elastic.own_bodies.parameters()):
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    return elastic


def mixed_levels(elastic: ElasticCNN) -> Tensor:
    """For six images: each profile of the codebook, then others."""
    assert elastic.codebook is not None
    return torch.cat([elastic.codebook, make_levels(elastic, 3, seed=8)])


@kinds
@torch.no_grad()
def test_neither_step_changes_what_profiles_of_the_codebook_compute(kind: str) -> None:
    elastic, images = make_elastic(kind), make_images(4)
    codebook = codebook_of(elastic)
    before = [elastic(images, profile) for profile in codebook]
    for step in (lambda: elastic.specialise(codebook), elastic.separate):
        step()
        for profile, expected in zip(codebook, before, strict=True):
            assert relative_error(elastic(images, profile), expected) < 1e-5


@kinds
@torch.no_grad()
def test_masks_are_slices_of_separated_networks_too(kind: str) -> None:
    elastic, images = separated(kind), make_images(6)
    levels = mixed_levels(elastic)
    together = elastic(images, levels)
    for image, profile, logits in zip(images, levels, together, strict=True):
        for alone in (elastic(image[None], profile), elastic.slice(profile)(image[None])):
            assert relative_error(alone[0], logits) < 1e-5


@torch.no_grad()
def test_a_body_of_its_own_is_used_by_its_profile_alone() -> None:
    shared, elastic, images = specialised("residual"), separated("residual"), make_images(6)
    *own, other, another, third = (
        relative_error(elastic(images, profile), shared(images, profile)) for profile in mixed_levels(elastic)
    )
    assert min(own) > 1e-3
    assert max(other, another, third) == 0


@kinds
@torch.no_grad()
def test_separated_networks_cost_and_come_back_as_others_do(kind: str) -> None:
    elastic, images = separated(kind), make_images(6)
    again = rebuild(json.loads(json.dumps(describe(elastic))))
    again.load_state_dict(elastic.state_dict())
    levels = mixed_levels(elastic)
    assert torch.equal(again(images, levels), elastic(images, levels))
    assert describe(again) == describe(elastic)
    assert not any(parameter.requires_grad for parameter in again.stem.parameters())
    for profile, params in zip(levels, Cost(elastic).of(levels).params, strict=True):
        assert sum(parameter.numel() for parameter in elastic.slice(profile).parameters()) == params


@torch.no_grad()
def test_a_policy_runs_the_bodies_that_profiles_have_of_their_own() -> None:
    elastic, data = separated("residual"), make_data(12)
    assert elastic.codebook is not None
    dynamic = DynamicCNN(
        elastic, make_policy(elastic, data, elastic.codebook, max_passes=2), data.mean, data.std, data.classes
    )
    predicted, images = dynamic(data.images), data.normalised(torch.arange(12))
    for image, profiles, probabilities in zip(images, predicted.profiles, predicted.probabilities, strict=True):
        last = elastic.codebook[profiles[profiles >= 0][-1]]
        assert relative_error(elastic(image[None], last).softmax(1)[0], probabilities) < 1e-4


@torch.no_grad()
def test_of_equal_profiles_the_first_counts() -> None:
    elastic, images = make_elastic("residual"), make_images(3)
    elastic.specialise(elastic.full.repeat(2, 1))
    elastic.separate()
    for parameter in elastic.own_bodies[1].parameters():
        parameter.mul_(2)
    assert relative_error(elastic(images, elastic.full.expand(3, -1)), elastic(images, elastic.full)) < 1e-5


def test_training_a_profile_changes_nothing_but_its_own_body() -> None:
    elastic, data = separated("residual"), make_data(16)
    before = copy.deepcopy(elastic)
    settings = replace(ONE_EACH, separate=True, shares=(0, 1, 0))
    adapt(elastic, data, settings, codebook=elastic.codebook)
    state = before.state_dict()
    changed = {name for name, value in elastic.state_dict().items() if not value.equal(state[name])}
    assert changed
    assert all(name.startswith("own_bodies.1.") for name in changed)


def test_profiles_are_separated_with_the_statistics_that_they_were_calibrated_to() -> None:
    elastic, calibrated, data = specialised("residual"), specialised("residual"), make_data(16)
    settings = replace(ONE_EACH, separate=True, shares=(0, 0, 1))
    calibrate(calibrated, data, settings)
    adapt(elastic, data, settings, codebook=elastic.codebook)
    assert elastic.codebook is not None
    untrained, images = elastic.codebook[0], make_images(3)
    with torch.no_grad():
        assert relative_error(elastic(images, untrained), calibrated(images, untrained)) < 1e-5


def test_what_is_left_of_a_dropped_branch_does_not_decay() -> None:
    elastic = make_elastic("residual")
    elastic.specialise(elastic.min_level[None])
    elastic.separate()
    constants = [p for name, p in elastic.own_bodies.named_parameters() if name.endswith("_constant")]
    _, stays = _with_decay(elastic, 0.1)
    assert constants
    assert {id(p) for p in constants} <= {id(p) for p in stays["params"]}


def test_training_goes_on_with_the_bodies_that_are_there() -> None:
    elastic, data = separated("residual"), make_data(16)
    bodies = list(elastic.own_bodies)
    adapt(elastic, data, replace(ONE_EACH, separate=True), codebook=elastic.codebook)
    assert all(ours is body for ours, body in zip(elastic.own_bodies, bodies, strict=True))


def test_what_cannot_be_separated_or_specialised_is_said() -> None:
    elastic = make_elastic("plain")
    with pytest.raises(LevelsError, match="the network is specialised to no codebook; only profiles of a codebook can"):
        elastic.separate()
    codebook = codebook_of(elastic)
    with pytest.raises(LevelsError, match=r"a codebook has shape \(K, \d\), not \(\d,\)"):
        elastic.specialise(codebook[0])
    elastic.specialise(codebook)
    with pytest.raises(LevelsError, match="specialised to a codebook already"):
        elastic.specialise(codebook)
    elastic.separate()
    with pytest.raises(LevelsError, match="separated already"):
        elastic.separate()
