from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from forgery import change_json
from nets import IMAGE_SHAPE, KINDS, make_data, make_elastic, make_images, make_levels, network, relative_error
from torch import nn

from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.baselines.static_pruning import static_profile
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.layers.resolution import shrink
from rlprune.errors import BundleError, LevelsError, ModelError
from rlprune.profiles.cost import Cost
from rlprune.storage import load_network, save_network


class OneResolution(nn.Module):
    """Its last layer reads every position by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
        self.head = nn.Linear(16 * 16 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x).flatten(1))


@pytest.fixture
def elastic() -> ElasticCNN:
    return make_elastic("residual", resolution=True)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_masks_slices_and_profiles_agree_at_every_resolution(kind: str) -> None:
    elastic, images = make_elastic(kind, resolution=True), make_images(12)
    levels = make_levels(elastic, 12)
    assert len(levels[:, -1].unique()) == 4
    masked = elastic(images, levels)
    for index, profile in enumerate(levels):
        sliced = elastic.slice(profile)(images)
        assert relative_error(elastic(images, profile), sliced) < 1e-5
        assert relative_error(masked[index], sliced[index]) < 1e-5


@torch.no_grad()
def test_full_resolution_is_the_network_as_it_was(elastic: ElasticCNN) -> None:
    assert relative_error(elastic(make_images(4)), make_elastic("residual")(make_images(4))) < 1e-5


def test_a_ratio_is_the_share_of_positions(elastic: ElasticCNN) -> None:
    assert elastic.groups[-1].name == "resolution" and elastic.groups[-1].is_resolution
    side = elastic.feature_shape[1]
    assert elastic.widths[-1, 1:].tolist() == [int(side * ratio**0.5) for ratio in (0.25, 0.5, 0.75, 1)]
    assert elastic.min_level[-1] == 1
    features = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(shrink(features, 0.25), F.avg_pool2d(features, 2))
    assert shrink(features, 0.5).shape == (1, 1, 2, 2) and shrink(features, 1.0) is features


@torch.no_grad()
def test_profiles_of_other_resolutions_have_bodies_of_their_own(elastic: ElasticCNN) -> None:
    book = elastic.full.repeat(3, 1)
    book[:, -1] = torch.tensor([1, 2, 4])
    elastic.specialise(book)
    images, levels = make_images(9), torch.cat([book, make_levels(elastic, 6)])
    before = elastic(images, levels)
    elastic.separate()
    assert relative_error(elastic(images, levels), before) < 1e-5


def test_the_resolution_is_set_apart_from_the_width(elastic: ElasticCNN) -> None:
    with elastic.set_resolution(0.25):
        assert elastic.profile.tolist() == [4] * (elastic.n_groups - 1) + [1]
        with elastic.set_width(0.5):
            assert elastic.profile.tolist() == [2] * (elastic.n_groups - 1) + [1]
    assert torch.equal(elastic.profile, elastic.full)
    with pytest.raises(LevelsError, match=r"has one resolution; .* resolution=True"):
        make_elastic("residual").set_resolution(0.5)


def test_a_network_of_one_resolution_is_refused() -> None:
    with pytest.raises(ModelError, match="runs at full resolution only"):
        ElasticCNN.from_model(OneResolution().eval(), IMAGE_SHAPE, resolution=True)


@torch.no_grad()
def test_it_is_stored(elastic: ElasticCNN, tmp_path: Path) -> None:
    save_network(tmp_path / "network", elastic, make_data(4))
    loaded = load_network(tmp_path / "network").network
    levels = make_levels(elastic, 6)
    assert loaded.resolution and relative_error(loaded(make_images(6), levels), elastic(make_images(6), levels)) < 1e-5
    assert torch.equal(Cost(loaded).of(levels).macs, Cost(elastic).of(levels).macs)


@pytest.mark.parametrize("resolution", [True, "yes"])
def test_what_claims_a_resolution_that_it_has_not_is_refused(resolution: object, tmp_path: Path) -> None:
    save_network(tmp_path / "network", ElasticCNN.from_model(OneResolution().eval(), IMAGE_SHAPE), make_data(4))
    change_json(tmp_path / "network", "network.json", lambda stored: stored | {"resolution": resolution})
    with pytest.raises(BundleError, match="resolution"):
        load_network(tmp_path / "network")


def test_the_lowest_resolution_says_what_it_saves(elastic: ElasticCNN) -> None:
    cost, lowest = Cost(elastic), elastic.full
    lowest[-1] = 1
    saved = cost.of_group(elastic.n_groups - 1)
    assert saved.macs == cost.dense.macs - cost.of(lowest).macs and saved.params == 0


def test_rivals_that_prune_channels_keep_the_resolution(elastic: ElasticCNN) -> None:
    profile = static_profile(elastic, 0.6, "global", make_data(4))
    assert profile[-1] == elastic.n_levels - 1 and Cost(elastic).of(profile).macs <= 0.6 * Cost(elastic).dense.macs
    gated, images = GatedCNN(elastic), make_images(4)
    assert elastic.n_groups - 1 not in gated.gated
    alike = GatedCNN(ElasticCNN.from_model(network("residual"), IMAGE_SHAPE))
    assert gated.decide(images).compute.macs[0] > 0 and len(gated.gates) == len(alike.gates)
