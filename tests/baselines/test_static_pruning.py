"""Pruning once and for all: what stays, that it trains so, and that it comes back from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from nets import IMAGE_SHAPE, KINDS, colours, make_elastic, make_images
from torch import nn

from rlprune.baselines.static_pruning import (
    PruningMethod,
    StaticSettings,
    Structure,
    remove_masks,
    share_of_zeros,
    static_network,
    static_profile,
)
from rlprune.baselines.stored import load_plain, save_plain
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import BundleError, RLPruneError
from rlprune.evaluation import tables
from rlprune.evaluation.static import evaluate_static
from rlprune.profiles.cost import Cost
from rlprune.storage.folders import kind_of
from rlprune.storage.networks import load_network
from rlprune.training.pretraining import pretrain

DATA = colours(60)
QUICK: dict[str, Any] = {"batch_size": 20, "bf16": False, "channels_last": False, "padding": 0, "flip": False}


def trained(elastic: ElasticCNN, budget: float, how: PruningMethod, epochs: int, **options: Any) -> nn.Sequential:
    settings = StaticSettings(epochs=epochs, budget=budget, how=how, n_candidates=8, **QUICK)
    network = static_network(elastic, settings, DATA)
    pretrain(network, DATA, settings, **options)
    remove_masks(network)
    return network


def weights_of(network: nn.Module) -> torch.Tensor:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return torch.cat([layer.weight.detach().flatten() for layer in layers])


@pytest.mark.parametrize("net", KINDS)
@pytest.mark.parametrize("how", ["uniform", "global", "searched"])
def test_a_static_profile_costs_no_more_than_it_may(net: str, how: Structure) -> None:
    elastic = make_elastic(net)
    cost = Cost(elastic)
    shares = []
    for budget in (0.6, 0.8, 1.0):
        profile = static_profile(elastic, budget, how, DATA.subset(slice(0, 10)), n_candidates=8)
        shares.append(float(cost.of(elastic.check_levels(profile)).macs / cost.dense.macs))
        assert shares[-1] <= budget
    assert shares == sorted(shares) or how == "searched"
    assert shares[-1] == 1.0


@torch.no_grad()
def test_globally_the_most_important_channels_stay_wherever_they_are() -> None:
    elastic = make_elastic("plain")
    for layer in elastic.layers_of(1):  # all of the second group's channels but the first eight matter little
        rows = layer.positions[layer.channels >= 8]
        weight = layer.layer.weight
        if isinstance(weight, torch.Tensor) and weight.ndim == 4:
            (weight.transpose(0, 1) if layer.axis == "in" else weight)[rows] *= 1e-3
    profile = static_profile(elastic, 0.7, "global", DATA)
    assert profile[1] < profile[0] and profile[1] < profile[2]


def test_a_budget_below_everything_is_named() -> None:
    elastic = make_elastic("plain")
    with pytest.raises(RLPruneError, match=r"budget 0\.001 is below the cheapest uniform profile, which costs 0\.\d+"):
        static_profile(elastic, 0.001, "uniform", DATA)
    for budget in (0.0, 1.5):
        with pytest.raises(RLPruneError, match=f"budget={budget}: give a number above 0, up to 1"):
            StaticSettings(budget=budget, how="global")
        with pytest.raises(RLPruneError, match=f"budget={budget}: give a number above 0, up to 1"):
            StaticSettings(budget=budget, how="unstructured")


def test_the_smallest_weights_become_zeros_and_stay_so_in_training() -> None:
    elastic = make_elastic("residual")
    before = weights_of(elastic.slice(elastic.full))
    network = trained(elastic, 0.25, "unstructured", 2)
    after = weights_of(network)
    assert share_of_zeros(network) == pytest.approx(0.75, abs=1e-3)
    assert before.abs()[after != 0].min() >= before.abs()[after == 0].max()
    assert not torch.equal(before[after != 0], after[after != 0])
    assert not any("mask" in name or "orig" in name for name in network.state_dict())


@pytest.mark.parametrize("how", get_args(PruningMethod))
def test_all_are_trained_and_come_back_from_their_folder(how: Any, tmp_path: Path) -> None:
    elastic = make_elastic("residual")
    network = trained(elastic, 0.6, how, 15)
    dense = Cost(elastic).dense
    metadata = {"how": how, "dense": {"params": int(dense.params), "macs": int(dense.macs)}}
    results = evaluate_static(network, DATA, metadata)
    assert results.accuracy > 0.9 and results.dense_accuracy is None
    assert results.zeros == pytest.approx(0.4 if how == "unstructured" else 0.0, abs=1e-3)
    beside = evaluate_static(network, DATA, metadata, lambda images: -network(images))
    assert (
        beside.dense_accuracy is not None
        and beside.dense_accuracy < 0.1
        and tables.static(beside).row_count == tables.static(results).row_count + 1
    )
    assert (results.macs_cut >= 0.4) == results.saves_time == (how != "unstructured")
    save_plain(tmp_path / "plain", network, IMAGE_SHAPE, DATA, metadata)
    saved = load_plain(tmp_path / "plain")
    assert saved.image_shape == IMAGE_SHAPE
    assert kind_of(tmp_path / "plain") == "plain" and saved.metadata == metadata and saved.data.classes == DATA.classes
    with torch.no_grad():
        assert torch.equal(saved.network(make_images(3)), network(make_images(3)))
    with pytest.raises(BundleError, match="holds a plain; a network or bundle is needed"):
        load_network(tmp_path / "plain")


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    elastic = make_elastic("residual")
    whole = trained(elastic, 0.5, "unstructured", 2)
    seen: list[int] = []

    def stop(n_images: int, _: dict[str, float]) -> None:
        seen.append(n_images)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(elastic, 0.5, "unstructured", 2, checkpoint=tmp_path / "c.pt", log=stop)
    again = trained(elastic, 0.5, "unstructured", 2, checkpoint=tmp_path / "c.pt")
    assert torch.equal(weights_of(whole), weights_of(again))


def test_a_training_is_not_gone_on_with_under_another_budget(tmp_path: Path) -> None:
    elastic, path = make_elastic("residual"), tmp_path / "c.pt"
    trained(elastic, 0.5, "unstructured", 1, checkpoint=path)
    with pytest.raises(RLPruneError, match=r"made under other settings \(budget: 0\.5, now 0\.1\)"):
        trained(elastic, 0.1, "unstructured", 1, checkpoint=path)


def test_a_plain_network_without_notes_is_measured_as_it_is() -> None:
    results = evaluate_static(make_elastic("plain").slice(), DATA, {})
    assert results.macs_cut == results.params_cut == 0 and results.how == "as it is"


def test_the_elastic_network_is_left_as_it_is() -> None:
    elastic = make_elastic("residual")
    before = {name: value.clone() for name, value in elastic.state_dict().items()}
    trained(elastic, 0.6, "global", 1)
    trained(elastic, 0.5, "unstructured", 1)
    assert all(torch.equal(before[name], value) for name, value in elastic.state_dict().items())
