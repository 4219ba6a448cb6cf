"""Gates inside a network: what they let pass, what that costs, what they learn, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import IMAGE_SHAPE, KINDS, N_CLASSES, colours, make_data, make_elastic, make_images, network, relative_error
from torch import Tensor, nn

from rlprune import models
from rlprune.baselines.gate_layers import Branch, Gate, straight_through
from rlprune.baselines.gate_training import GateSettings, train_gates
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.baselines.stored import load_gated, save_gated
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import BundleError, ModelError, RLPruneError
from rlprune.evaluation import tables
from rlprune.evaluation.gated import decide_all, evaluate_gated
from rlprune.profiles.cost import Cost
from rlprune.storage.folders import kind_of
from rlprune.storage.networks import load_network

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


@torch.no_grad()
def test_a_branch_runs_only_for_the_images_that_want_it() -> None:
    gated, n_seen = make_gated("residual", "branches"), []
    branch = gated.get_submodule("body.gating.branches.1")
    assert isinstance(branch, Branch)
    (first,) = [layer for name, layer in branch.named_modules() if name.endswith("conv1")]
    first.register_forward_hook(lambda _, inputs, __: n_seen.append(len(inputs[0])))
    others = [torch.ones(5, 1), torch.zeros(5, 1)]
    for column in ([1, 0, 0, 1, 0], [0] * 5, [1] * 5):
        gated.decide(make_images(5), [others[0], torch.tensor(column)[:, None].float(), others[1]])
    assert n_seen == [2, 5]  # and not at all for nobody


@torch.no_grad()
def test_a_branch_is_weighted_by_its_gate() -> None:
    gated, images = make_gated("residual", "branches"), make_images(3)
    said = gated.run(images)[1]
    shares = [torch.full_like(one, 0.75) for one in said]
    ones, zeros = ([torch.full_like(one, value) for one in said] for value in (1.0, 0.0))
    branch = gated.get_submodule("body.gating.branches.0")
    assert isinstance(branch, Branch)
    features = gated.stem(images)
    whole, none, part = (branch(told[0], features) for told in (ones, zeros, shares))
    assert torch.allclose(part, 0.75 * whole) and bool((none == 0).all()) and none.shape != whole.shape
    assert torch.allclose(branch(torch.full((3, 1), 0.4), features), none)  # below the threshold
    gated.soft()
    assert torch.allclose(branch(torch.full((3, 1), 0.4), features), 0.4 * whole)
    gated.soft(False)
    assert torch.allclose(branch(torch.full((3, 1), 0.4), features), none)


def test_gates_read_what_a_layer_reads_and_speak_of_what_it_makes() -> None:
    gated = make_gated("plain", "channels")
    sizes = [(gate.reduce.in_features, gate.expand.out_features) for gate in find_gates(gated)]
    assert sizes == [(16, 32), (32, 24), (96, 40)]  # inputs and outputs of the two convolutions and the linear layer


def test_what_does_not_pass_still_learns() -> None:
    wanted = torch.tensor([0.2, 0.8], requires_grad=True)
    hard = straight_through(wanted, 0.5)
    assert hard.tolist() == [0.0, 1.0]
    (hard * torch.tensor([2.0, 3.0])).sum().backward()
    assert wanted.grad is not None and wanted.grad.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("kind", ["channels", "branches"])
def test_training_meets_the_density_and_stays_right(kind: str) -> None:
    data, gated = colours(80), make_gated("residual", kind)
    settings = GateSettings(epochs=30, learning_rate=0.05, density=0.6, distillation=0.0, **QUICK)
    seen: list[dict[str, float]] = []
    train_gates(gated, data, settings, log=lambda _, figures: seen.append(figures))
    results = evaluate_gated(gated, data)
    assert results.accuracy > 0.9
    assert results.density == pytest.approx(0.6, abs=0.15)
    assert seen[-1].keys() == {"loss", "density", "learning_rate"}
    assert 0 < results.macs_cut < 1


def test_sparsity_closes_gates_without_a_target() -> None:
    data, densities = colours(80), []
    for sparsity in (1e-9, 0.05):
        gated = make_gated("residual", "channels")
        settings = GateSettings(epochs=20, sparsity=sparsity, distillation=0.0, **QUICK)
        train_gates(gated, data, settings)
        densities.append(evaluate_gated(gated, data).density)
    assert densities[1] < densities[0] - 0.3


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


@pytest.mark.parametrize("kind", ["channels", "branches"])
@torch.no_grad()
def test_it_comes_back_from_its_folder(kind: str, tmp_path: Path) -> None:
    gated, data, images = make_gated("residual", kind), make_data(4), make_images(4)
    save_gated(tmp_path / "gated", gated, data, {"note": 1})
    saved = load_gated(tmp_path / "gated")
    assert (
        kind_of(tmp_path / "gated") == "gated" and saved.metadata == {"note": 1} and saved.data.classes == data.classes
    )
    assert torch.equal(saved.network.source[0](images), gated.source[0](images))  # to learn from, and to stand beside
    for ours, theirs in zip(gated.run(images), saved.network.run(images), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
    with pytest.raises(BundleError, match="holds a gated; a network or bundle is needed"):
        load_network(tmp_path / "gated")


def test_a_folder_with_gates_that_cannot_be_is_refused(tmp_path: Path) -> None:
    gated = make_gated("residual", "channels")
    gated.threshold = 2.0
    save_gated(tmp_path / "gated", gated, make_data(4))
    with pytest.raises(BundleError, match=r"threshold=2\.0"):
        load_gated(tmp_path / "gated")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "rows"}, "kind='rows'.*allowed are channels, branches"),
        ({"threshold": 1.0}, "threshold=1.0"),
        ({"reduction": 0}, "reduction=0"),
    ],
)
def test_gates_that_cannot_be_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        GatedCNN(make_elastic("residual"), **options)


class Nested(nn.Module):
    """A residual branch that holds another, and two that start from what one layer makes."""

    def __init__(self, n_channels: int = 16) -> None:
        super().__init__()
        names = ("stem", "outer1", "inner1", "inner2", "outer2", "shared", "a1", "a2", "b1", "b2")
        for name in names:
            setattr(self, name, nn.Conv2d(3 if name == "stem" else n_channels, n_channels, 3, padding=1))
        self.gates, self.branches = nn.Linear(n_channels, N_CLASSES), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        h = self.outer1(x).relu()
        h = h + self.inner2(self.inner1(h).relu())
        x = x + self.outer2(h.relu())
        h = self.shared(x).relu()
        x = x + self.a2(self.a1(h).relu()) + self.b2(self.b1(h).relu())
        return self.gates(x.mean((2, 3)))


@torch.no_grad()
def test_branches_inside_others_and_beside_them() -> None:
    torch.manual_seed(0)
    elastic = ElasticCNN.from_model(Nested(), IMAGE_SHAPE)
    images = make_images(4)
    for kind in ("channels", "branches"):
        gated = GatedCNN(elastic, kind).eval()
        ones = [torch.ones_like(said) for said in gated.run(images)[1]]
        assert relative_error(gated.decide(images, ones).logits, elastic(images, elastic.full)) < 1e-5
    assert len(gated.gated) == 3  # the inner one of the nested, and both others
    zeros = [torch.zeros(1, 1) for _ in gated.gated]
    conv, size = 9 * 16 * 16, 16 * 16
    left = int(gated.decide(images[:1], zeros).compute.macs - gated.gates_cost.macs)
    assert left == 9 * 3 * 16 * size + 3 * conv * size + 16 * N_CLASSES  # the shared layer runs all the same


def test_branches_that_read_more_than_features_are_left_alone() -> None:
    class Sized(Nested):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            n = x.shape[0]
            x = x + self.a2(self.a1(x).relu().expand(n, -1, -1, -1))
            return self.gates(x.mean((2, 3)).view(n, -1))

    with pytest.raises(ModelError, match=r"no branch that gates could skip: .* reads nothing but"):
        GatedCNN(ElasticCNN.from_model(Sized(), IMAGE_SHAPE), "branches")


def test_gates_take_the_place_of_nothing() -> None:
    class Taken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.gating = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
            self.linear = nn.Linear(16, N_CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.gating(self.stem(x).relu()).relu().mean((2, 3)))

    with pytest.raises(ModelError, match="the network has a module called 'gating', where gates would be put; rename"):
        GatedCNN(ElasticCNN.from_model(Taken(), IMAGE_SHAPE))


@torch.no_grad()
@every
def test_prepared_it_says_the_same(net: str, kind: str) -> None:
    gated, images = make_gated(net, kind), make_images(5)
    wanted = random_gates(gated, 5)
    prepared = gated.prepared()
    assert relative_error(prepared.decide(images, wanted).logits, gated.decide(images, wanted).logits) < 1e-4
    assert not any(isinstance(m, nn.BatchNorm2d) for m in prepared.body.modules()) or net == "concat"


def test_branches_need_a_network_that_has_some() -> None:
    with pytest.raises(ModelError, match=r"no branch that gates could skip.*gates for channels need none"):
        GatedCNN(make_elastic("plain"), "branches")


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
