"""Gates inside a network: what they let pass, what that costs, what they learn, and what is told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from nets import IMAGE_SHAPE, KINDS, colours, make_data, make_elastic, make_images, network, relative_error
from torch import Tensor, nn

from rlprune import models
from rlprune.baselines.gate_layers import Gate
from rlprune.baselines.gate_training import GateSettings, train_gates
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import ModelError, RLPruneError
from rlprune.evaluation import tables
from rlprune.evaluation.gated import decide_all, evaluate_gated
from rlprune.profiles.cost import Cost

BRANCHED = ("residual", "depthwise", "se")
EVERY = [*((kind, "channels") for kind in KINDS), *((kind, "branches") for kind in BRANCHED)]
every = pytest.mark.parametrize(("net", "kind"), EVERY)
QUICK: dict[str, Any] = {"batch_size": 16, "bf16": False, "channels_last": False, "padding": 0, "flip": False}


def make_gated(net: str, kind: str) -> GatedCNN:
    torch.manual_seed(0)
    return GatedCNN(make_elastic(net), kind).eval()


def random_gates(gated: GatedCNN, n: int) -> list[Tensor]:
    """What gates might say of n images, some of a gate's values above its threshold and some below."""
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(n, gate.expand.out_features, generator=generator) for gate in find_gates(gated)]


def find_gates(gated: GatedCNN) -> list[Gate]:
    return [gate for gate in gated.gates if isinstance(gate, Gate)]


@every
@torch.no_grad()
def test_with_all_gates_open_it_is_the_network_it_was(net: str, kind: str) -> None:
    gated, images = make_gated(net, kind), make_images(4)
    elastic = gated.source[0]
    ones = [torch.ones_like(said) for said in gated.run(images)[1]]
    decided = gated.decide(images, ones)
    assert relative_error(decided.logits, elastic(images, elastic.full)) < 1e-5
    assert torch.equal(decided.kept, gated.n_channels.expand(4, -1))
    dense = Cost(elastic).dense
    for total, gates, whole in zip(decided.compute, gated.gates_cost, dense, strict=True):
        assert total.tolist() == [int(gates + whole)] * 4


@pytest.mark.parametrize("net", KINDS)
@torch.no_grad()
def test_hidden_channels_are_those_that_a_slice_has_not(net: str) -> None:
    elastic = ElasticCNN.from_model(network(net), IMAGE_SHAPE)  # whose norms have the same numbers at all levels
    gated, images, profile = GatedCNN(elastic).eval(), make_images(3), elastic.uniform(2)
    widths = elastic.widths[torch.arange(elastic.n_groups), profile]
    first = [(torch.arange(n) < width).float().expand(3, -1) for n, width in zip(gated.n_channels, widths, strict=True)]
    decided = gated.decide(images, first)
    assert relative_error(decided.logits, elastic(images, profile)) < 1e-5
    assert torch.equal(decided.kept[0], widths)
    assert int(decided.compute.macs[0] - gated.gates_cost.macs) == int(Cost(elastic).of(profile).macs)
    assert int(decided.compute.params[0] - gated.gates_cost.params) == int(Cost(elastic).of(profile).params)


@pytest.mark.parametrize("net", BRANCHED)
@torch.no_grad()
def test_a_skipped_branch_costs_what_a_dropped_one_does(net: str) -> None:
    gated = make_gated(net, "branches")
    nothing = [torch.zeros(1, 1) for _ in gated.gated]
    profile = gated.source[0].full
    profile[gated.gated] = 0
    decided = gated.decide(make_images(1), nothing)
    assert int(decided.compute.macs - gated.gates_cost.macs) == int(Cost(gated.source[0]).of(profile).macs)
    branches = [gated.get_submodule(f"body.gating.branches.{index}") for index in gated.gated]
    left = Cost(gated.source[0]).dense.params - sum(p.numel() for branch in branches for p in branch.parameters())
    assert int(decided.compute.params - gated.gates_cost.params) == int(left)


@every
@torch.no_grad()
def test_an_image_alone_is_the_same_image_in_a_batch(net: str, kind: str) -> None:
    gated, images = make_gated(net, kind), make_images(6)
    wanted = random_gates(gated, 6)
    together = gated.decide(images, wanted)
    for i in range(6):
        alone = gated.decide(images[i : i + 1], [said[i : i + 1] for said in wanted])
        assert relative_error(alone.logits, together.logits[i : i + 1]) < 1e-5
        assert torch.equal(alone.kept[0], together.kept[i])


def test_gates_read_what_a_layer_reads_and_speak_of_what_it_makes() -> None:
    gated = make_gated("plain", "channels")
    sizes = [(gate.reduce.in_features, gate.expand.out_features) for gate in find_gates(gated)]
    assert sizes == [(16, 32), (32, 24), (96, 40)]  # inputs and outputs of the two convolutions and the linear layer


@torch.no_grad()
def test_figures_are_those_of_the_images() -> None:
    gated, data = make_gated("residual", "branches"), make_data(40)
    results, found = evaluate_gated(gated, data, seed=3), decide_all(gated, data, batch_size=7)
    assert results.accuracy == float((found.logits.argmax(1) == data.labels).double().mean())
    assert results.macs_cut == pytest.approx(1 - float(found.compute.macs.double().mean() / gated.cost.dense.macs))
    assert len(results.layers) == len(gated.gated)
    for layer, index in zip(results.layers, gated.gated, strict=True):
        assert layer.name == gated.source[0].groups[index].name
        assert layer.kept == pytest.approx(float(found.kept[:, index].double().mean()))
        counts = torch.bincount(data.labels, minlength=5)
        mean = sum(layer.by_class[name] * int(n) for name, n in zip(data.classes, counts, strict=True)) / 40
        assert mean == pytest.approx(layer.kept)
    assert results.controls.keys() == results.controls_macs_cut.keys() == {"shuffled", "average"}
    assert results.controls_macs_cut["shuffled"] == pytest.approx(results.macs_cut)
    assert results.saves_time and results.distinct == len(found.kept.unique(dim=0))
    json.dumps(results.to_json())
    assert tables.gates(results).row_count == 4 + len(gated.gated)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "rows"}, "kind of gates is 'rows'; allowed: channels, branches"),
        ({"threshold": 1.0}, r"threshold of gates is 1\.0; a number between 0 and 1 is needed"),
        ({"reduction": 0}, "reduction of gates is 0; 1 or more is needed"),
    ],
)
def test_gates_that_cannot_be_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        GatedCNN(make_elastic("residual"), **options)


@torch.no_grad()
@every
def test_prepared_it_says_the_same(net: str, kind: str) -> None:
    gated, images = make_gated(net, kind), make_images(5)
    wanted = random_gates(gated, 5)
    prepared = gated.prepared()
    assert relative_error(prepared.decide(images, wanted).logits, gated.decide(images, wanted).logits) < 1e-4
    assert not any(isinstance(m, nn.BatchNorm2d) for m in prepared.body.modules()) or net == "concat"


@pytest.mark.parametrize("options", [{"density": 1.0}, {"strength": -1.0}, {"sparsity": -0.1}])
def test_settings_that_cannot_be_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(RLPruneError, match=f"{name}={options[name]}"):
        GateSettings(**options)


def test_the_original_is_left_as_it_is() -> None:
    elastic, data = make_elastic("residual"), colours(32)
    before = {name: value.clone() for name, value in elastic.state_dict().items()}
    gated = GatedCNN(elastic)
    assert not any(isinstance(module, ElasticCNN) for module in gated.modules())
    train_gates(gated, data, GateSettings(epochs=1, **QUICK))
    assert all(torch.equal(before[name], value) for name, value in elastic.state_dict().items())
    assert isinstance(gated.stem, nn.Module) and not torch.equal(
        next(gated.stem.parameters()), next(elastic.stem.parameters())
    )


@torch.no_grad()
def test_deep_networks_are_prepared_too() -> None:
    deep = ElasticCNN.from_model(models.build("resnet56"), (3, 32, 32))
    gated, images = GatedCNN(deep, "branches").eval(), torch.randn(2, 3, 32, 32)
    assert relative_error(gated.prepared()(images), gated(images)) < 1e-4
