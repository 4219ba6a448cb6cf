"""Layers of every kind between two convolutions: the group in front passes through, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import IMAGE_SHAPE, N_CLASSES, made_once, make_data, make_images, make_levels, relative_error
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.elastic.cnn import ElasticCNN
from rlprune.graph.folding import fold_norms, optimize_for_inference
from rlprune.profiles.cost import Cost
from rlprune.storage.structure import describe, rebuild


class LayerNorm2d(nn.LayerNorm):
    """Over channels, which come second."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Gate(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def gate_by_chunk(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a * b.sigmoid()


def gate_by_split(x: Tensor) -> Tensor:
    a, b = x.split(16, 1)
    return a * b


def two_gates(x: Tensor) -> Tensor:
    a, b, c, d = x.chunk(4, dim=1)
    return torch.cat([a * d, c.tanh() * b], 1)


def gate_used_twice(x: Tensor) -> Tensor:
    return torch.cat([gate_by_chunk(x)] * 2, 1)


def several_kinds() -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(16, 32),
        nn.PReLU(32),
        nn.Conv2d(32, 48, 3, groups=8),
        nn.InstanceNorm2d(48, affine=True, track_running_stats=True),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.ConvTranspose2d(48, 24, 3, 2, 1, 1, dilation=(1, 2), bias=False),
        nn.BatchNorm2d(24),
        nn.GLU(1),
        LayerNorm2d(12),
        nn.GELU(),
        nn.Conv2d(12, 32, 1),
    )


class Net(nn.Module):
    def __init__(self, between: nn.Module, width: int) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 32, 3)
        self.between, self.last = between, nn.Conv2d(width, 16, 1)
        self.linear = nn.Linear(16, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self.first(F.relu(self.stem(x))))
        return self.linear(F.relu(self.last(x)).mean((2, 3)))


KINDS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "one slope": (nn.PReLU, 32, 32),
    "slopes": (lambda: nn.PReLU(32), 32, 32),
    "instance norm": (lambda: nn.InstanceNorm2d(32), 32, 32),
    "affine instance norm": (lambda: nn.InstanceNorm2d(32, affine=True), 32, 32),
    "instance norm with statistics": (lambda: nn.InstanceNorm2d(32, affine=True, track_running_stats=True), 32, 32),
    "synchronised batch norm": (lambda: nn.SyncBatchNorm(32), 32, 32),
    "transposed convolution": (lambda: nn.ConvTranspose2d(32, 24, 3, 2, 1, 1), 24, 32),
    "grouped convolution": (lambda: nn.Conv2d(32, 32, 3, groups=4), 32, 4),
    "grouped convolution that narrows": (lambda: nn.Conv2d(32, 16, 3, groups=16, bias=False), 16, 16),
    "depthwise convolution that widens": (lambda: nn.Conv2d(32, 64, 3, groups=32), 64, 32),
    "group norm": (lambda: nn.GroupNorm(8, 32), 32, 8),
    "group norm without weights": (lambda: nn.GroupNorm(4, 32, affine=False), 32, 4),
    "group norm of one group": (lambda: nn.GroupNorm(1, 32), 32, 32),
    "group norm and grouped convolution": (
        lambda: nn.Sequential(nn.GroupNorm(8, 32), nn.Conv2d(32, 32, 1, groups=4)),
        32,
        4,
    ),
    "layer norm": (lambda: LayerNorm2d(32), 32, 32),
    "layer norm without weights": (lambda: LayerNorm2d(32, elementwise_affine=False), 32, 32),
    "gate by chunk": (lambda: Gate(gate_by_chunk), 16, 16),
    "gate by split": (lambda: Gate(gate_by_split), 16, 16),
    "gate by slices": (lambda: Gate(lambda x: x[:, :16] * x[:, 16:, ...]), 16, 16),
    "two gates": (lambda: Gate(two_gates), 16, 8),
    "gate used twice": (lambda: Gate(gate_used_twice), 32, 16),
    "gated linear unit": (lambda: nn.GLU(1), 16, 16),
    "functional gated linear unit": (lambda: Gate(lambda x: F.glu(x, dim=1)), 16, 16),
    "two signs": (lambda: Gate(lambda x: torch.cat([x.relu(), (-x).relu()], 1)), 64, 32),
    "zeros around": (lambda: nn.ZeroPad2d((0, 1, 0, 1)), 32, 32),
    "functional zeros around": (lambda: Gate(lambda x: F.pad(x, (0, 1, 0, 1))), 32, 32),
    "mirrored borders": (lambda: nn.ReflectionPad2d(1), 32, 32),
    "random slopes": (nn.RReLU, 32, 32),
    "threshold": (lambda: nn.Threshold(0.1, 0.0), 32, 32),
    "several": (several_kinds, 32, 8),
}
"""By name: what makes the layer, how many channels it gives, and how many the group in front counts."""
kinds = pytest.mark.parametrize("kind", list(KINDS))


@made_once
def make(kind: str) -> tuple[nn.Module, ElasticCNN]:
    """A network with values other than zeros and ones in its norms, and the elastic network of it."""
    torch.manual_seed(0)
    layer, width, _ = KINDS[kind]
    model = Net(layer(), width).eval()
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if value.is_floating_point() and value.ndim == 1:
                value += 0.2 + 0.5 * torch.rand(value.shape)
                assert name
    return model, ElasticCNN.from_model(model, IMAGE_SHAPE, round_to=2)


@torch.no_grad()
@kinds
def test_full_keep_is_the_network_itself(kind: str) -> None:
    model, elastic = make(kind)
    assert {group.name: group.n_channels for group in elastic.groups}["first"] == KINDS[kind][2]
    images = make_images(3)
    full = elastic.full
    for logits in (elastic(images, full), elastic(images, full.expand(3, -1)), elastic.slice(full)(images)):
        assert relative_error(logits, model(images)) <= 1e-5


@torch.no_grad()
@kinds
def test_masks_and_slices_are_the_same(kind: str) -> None:
    elastic = make(kind)[1].double()
    images = make_images(6).double()
    levels = make_levels(elastic, 6)
    masked = elastic(images, levels)
    for image, profile, logits in zip(images.split(1), levels, masked.split(1), strict=True):
        assert relative_error(elastic.slice(profile)(image), logits) <= 1e-9
        assert relative_error(elastic(image, profile), logits) <= 1e-9


@torch.no_grad()
@kinds
def test_costs_are_those_of_slices(kind: str) -> None:
    _, elastic = make(kind)
    cost = Cost(elastic)
    for profile in (*make_levels(elastic, 5), elastic.full, elastic.uniform(0)):
        small = elastic.slice(profile)
        with FlopCounterMode(display=False) as counter:
            small(make_images(1))
        counted = sum(p.numel() for p in small.parameters()), counter.get_total_flops() // 2
        assert tuple(int(value) for value in cost.of(profile)) == counted
        widths = elastic.widths[torch.arange(elastic.n_groups), profile]
        assert tuple(int(value) for value in cost.of_kept(widths[None])) == counted


@kinds
def test_both_ways_have_the_same_gradients(kind: str) -> None:
    elastic = make(kind)[1].double()
    images = make_images(3).double()
    (profile,) = make_levels(elastic, 1, seed=2).clamp_min(1)
    gradients: list[dict[str, Tensor]] = []
    for levels in (profile, profile.expand(3, -1)):
        elastic.zero_grad()
        F.cross_entropy(elastic(images, levels), torch.tensor([0, 1, 2])).backward()
        gradients.append({name: p.grad.clone() for name, p in elastic.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == {name for name, _ in elastic.named_parameters()}
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() <= 1e-9 * gradient.abs().max() + 1e-12


@kinds
def test_a_training_step_moves_what_the_slice_holds(kind: str) -> None:
    _, elastic = make(kind)
    before = {name: value.clone() for name, value in elastic.state_dict().items()}
    profile = elastic.uniform(2)
    elastic.train()
    F.cross_entropy(elastic(make_images(4), profile), torch.tensor([0, 1, 2, 3])).backward()
    with torch.no_grad():
        for parameter in elastic.parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all()
            parameter -= 0.1 * parameter.grad
    small = elastic.eval().slice(profile)
    for name, parameter in elastic.named_parameters():
        moved = int((parameter != before[name]).sum())
        assert moved <= (small if name.startswith("body.") else elastic).get_parameter(name).numel()
    between = [name for name, _ in elastic.named_parameters() if name.startswith("body.between")]
    assert not between or any(not torch.equal(elastic.get_parameter(name), before[name]) for name in between)
    assert elastic(make_images(2), elastic.full).isfinite().all()


@torch.no_grad()
@kinds
def test_it_is_stored_and_folded(kind: str) -> None:
    _, elastic = make(kind)
    images = make_images(2)
    again = rebuild(json.loads(json.dumps(describe(elastic))))
    again.load_state_dict(elastic.state_dict())
    (profile,) = make_levels(elastic, 1, seed=1)
    assert torch.equal(again(images, profile), elastic(images, profile))
    assert torch.equal(again.widths, elastic.widths)
    small = elastic.slice(profile)
    for faster in (fold_norms(small), optimize_for_inference(small)):
        assert relative_error(faster(images), small(images)) <= 1e-5


@pytest.mark.parametrize("importance", ["l1", "l2", "gradient", "taylor", "hessian"])
def test_channels_of_every_kind_are_ranked(importance: str) -> None:
    torch.manual_seed(0)
    model = Net(several_kinds(), 32).eval()
    options: dict[str, Any] = {"calibration": make_data(4)} if importance not in ("l1", "l2") else {}
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE, importance=importance, **options)
    images = make_images(2)
    with torch.no_grad():
        assert relative_error(elastic(images, elastic.full), model(images)) <= 1e-5
    assert [group.n_channels for group in elastic.groups] == [8, 12, 32, 16]


def test_the_more_important_convolution_groups_come_first() -> None:
    torch.manual_seed(0)
    model = Net(nn.Conv2d(32, 32, 3, groups=4), 32).eval()
    with torch.no_grad():
        for group, scale in enumerate((1.0, 4.0, 2.0, 3.0)):
            for layer in (model.first, model.between):
                layer.weight[8 * group : 8 * group + 8] *= scale
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    between = elastic.elastic_layers()["between"]
    expected = torch.cat([model.between.weight[8 * group : 8 * group + 8] for group in (1, 3, 2, 0)])
    assert torch.equal(between.weight, expected)


@pytest.mark.parametrize(("round_to", "widths"), [(1, [0, 1, 2, 3, 4]), (8, [0, 1, 2, 3, 4]), (9, [0, 2, 2, 4, 4])])
def test_widths_round_up_to_whole_convolution_groups(round_to: int, widths: list[int]) -> None:
    model = Net(nn.Conv2d(32, 32, 3, groups=4), 32).eval()
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE, round_to=round_to)
    assert elastic.groups[0].layer_channels == 8
    (channel_groups, *_) = elastic.widths.tolist()
    assert channel_groups[1:] == widths[1:]


def test_one_slope_may_serve_layers_of_any_width() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(*widths, 3) for widths in ((3, 8), (8, 16), (16, 24)))
            self.rectify, self.linear = nn.PReLU(), nn.Linear(24, N_CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            for conv in self.convs:
                x = self.rectify(conv(x))
            return self.linear(x.mean((2, 3)))

    elastic = ElasticCNN.from_model(Shared().eval(), IMAGE_SHAPE)
    assert {group.name: group.n_channels for group in elastic.groups} == {"convs.1": 16, "convs.2": 24}


def test_a_norm_over_all_groups_ties_what_no_layer_can_part() -> None:
    model = Net(nn.Sequential(nn.GroupNorm(2, 32), nn.Conv2d(32, 32, 1, groups=32), nn.GroupNorm(1, 32)), 32).eval()
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    assert elastic.groups[0].n_channels == 2
