"""What `ElasticCNN.from_model` refuses, and what a network with very many drop patterns keeps in memory."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from nets import IMAGE_SHAPE, Block, Do, make_images, network, randomise_levels, randomise_norms, relative_error
from torch import Tensor, nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import ModelError
from rlprune.graph.serialization import check_storable


def test_an_unknown_importance_is_refused() -> None:
    with pytest.raises(ModelError, match="importance 'magic' is unknown; allowed: l1, l2, bn_scale"):
        ElasticCNN.from_model(network("plain"), IMAGE_SHAPE, importance="magic")


def test_a_forward_that_depends_on_other_images_is_refused() -> None:
    model = nn.Sequential(Do(lambda x: x - x.mean(0, keepdim=True)), network("plain"))
    with pytest.raises(ModelError, match=r"gives other logits than the network itself; .* or depend on the batch"):
        ElasticCNN.from_model(model, IMAGE_SHAPE)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_part_that_is_a_torchscript_module_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), torch.jit.script(nn.ReLU()))
    with pytest.raises(ModelError, match=r"1 is a TorchScript module; put the nn\.Module that it was made from"):
        ElasticCNN.from_model(model, IMAGE_SHAPE)


def test_a_forward_that_depends_on_the_batch_size_is_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x[:, :4].relu_()
            return self.conv(x).mean((2, 3))

    with pytest.raises(ModelError, match="the traced Odd gives other logits than the network itself"):
        ElasticCNN.from_model(Odd(), IMAGE_SHAPE)


class Wrapped(nn.Module):
    """Gives what a function makes of a network's logits."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.inner, self.change = network("plain"), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.inner(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: (logits, logits), "returns a tuple; logits of shape (B, classes) are needed"),
        (lambda logits: {"logits": logits}, "dict; logits of shape (B, classes) are needed"),
        (
            lambda logits: logits.view(-1, 5, 1, 1),
            "returns a tensor of shape (2, 5, 1, 1); logits of shape (B, classes)",
        ),
        (lambda logits: logits.mean(1), "returns a tensor of shape (2,); logits of shape (B, classes) are needed"),
    ],
)
def test_what_is_no_logits_is_refused_in_one_line(change: Any, message: str) -> None:
    with pytest.raises(ModelError) as raised:
        ElasticCNN.from_model(Wrapped(change), IMAGE_SHAPE)
    text = str(raised.value)
    assert message in text and "\n" not in text


class Named(NamedTuple):
    """What a network gives, as torchvision's have it."""

    logits: Tensor
    other: Tensor


@dataclasses.dataclass
class Fields:
    """What a network gives, as other libraries have it."""

    logits: Tensor
    other: Tensor | None = None


@pytest.mark.parametrize(
    ("change", "output"),
    [
        (lambda logits: Named(logits, logits * 2), 0),
        (lambda logits: Named(logits, logits * 2), "logits"),
        (lambda logits: Fields(logits), "logits"),
        (lambda logits: {"features": logits * 2, "logits": logits}, "logits"),
        (lambda logits: (logits * 2, logits), 1),
        (lambda logits: [logits], 0),
    ],
)
@torch.no_grad()
def test_the_logits_are_one_of_several_outputs(change: Any, output: str | int) -> None:
    elastic, images = ElasticCNN.from_model(Wrapped(change), IMAGE_SHAPE, output=output), make_images(2)
    assert relative_error(elastic(images, elastic.full), network("plain")(images)) < 1e-5
    check_storable(elastic.slice(elastic.full))
    with pytest.raises(ModelError, match=r"they are: output=.*; output=7 is none of them"):
        ElasticCNN.from_model(Wrapped(change), IMAGE_SHAPE, output=7)


def test_an_output_is_not_asked_for_where_there_is_one() -> None:
    with pytest.raises(ModelError, match="output='logits' is given, but Plain returns a single result: leave it out"):
        ElasticCNN.from_model(network("plain"), IMAGE_SHAPE, output="logits")


def test_one_logit_is_refused() -> None:
    with pytest.raises(ModelError, match=r"returns 1 logit.*a network of two classes needs 2 logits"):
        ElasticCNN.from_model(Wrapped(lambda logits: logits[:, :1]), IMAGE_SHAPE)


class Stream(nn.Module):
    """A stream that a block adds to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.linear = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.a(x)
        return self.linear((x + self.b(x)).relu().mean((2, 3)))


def test_residual_is_recommended_where_it_gives_groups() -> None:
    stem, a, b, linear = 14 * 14 * 8 * 27, 14 * 14 * 16 * 72, 14 * 14 * 16 * 16, 16 * 5
    least = 100 * (stem + a / 2 + b / 4 + linear / 2) / (stem + a + b + linear)  # 8 of 16 channels
    found = f"residual=True would give 1 groups, and save MACs down to {least:.0f} %"
    with pytest.raises(ModelError, match=f"without residual=True; {found}"):
        ElasticCNN.from_model(Stream(), IMAGE_SHAPE)
    assert ElasticCNN.from_model(Stream(), IMAGE_SHAPE, residual=True).groups[0].name == "a"


def test_next_to_nothing_to_save_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    thin = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ElasticCNN.from_model(nn.Sequential(thin, nn.Linear(8, 5)), IMAGE_SHAPE)
    said = capsys.readouterr().err
    share = 100 * 12 * 12 * 8 * 36 / (14 * 14 * 4 * 27 + 12 * 12 * 8 * 36 + 8 * 5)
    assert f"down to 100.0 % of the MACs; {share:.0f} % of them are in layers such as 0.2: its widths round up" in said
    ElasticCNN.from_model(nn.Sequential(thin, nn.Linear(8, 5)), IMAGE_SHAPE, round_to=1)
    assert not capsys.readouterr().err


def test_residual_is_recommended_where_little_else_can_be_saved(capsys: pytest.CaptureFixture[str]) -> None:
    class Small(Stream):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))

    ElasticCNN.from_model(Small(), IMAGE_SHAPE)
    said = capsys.readouterr().err
    assert (
        "are in layers such as a: residual stream: pruned only with residual=True; residual=True would give 2" in said
    )
    ElasticCNN.from_model(Small(), IMAGE_SHAPE, residual=True)
    assert not capsys.readouterr().err


def test_a_layer_that_gets_another_size_is_named() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate = nn.Conv2d(3, 16, 3), nn.Sequential(nn.Linear(16, 16), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x) * self.gate(x.mean((2, 3)))[:, :, None, None]).mean((2, 3))

    with pytest.raises(ModelError, match=r"; gate\.0 \(Linear\(in_features=16, .*\)\) gets \(2, 3\)"):
        ElasticCNN.from_model(Gate(), IMAGE_SHAPE)


def test_convolutions_before_a_recurrent_layer_are_pruned() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 32, 3), nn.Conv2d(32, 24, 3)
            self.gru, self.linear = nn.GRU(24, 16, batch_first=True), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.b(self.a(self.stem(x).relu()).relu())
            return self.linear(self.gru(x.flatten(2).transpose(1, 2))[0][:, -1])

    elastic = ElasticCNN.from_model(Recurrent(), IMAGE_SHAPE)
    assert [group.name for group in elastic.groups] == ["a"]
    assert {"b", "gru"} <= {item.name for item in elastic.unprunable}


class Silent(nn.Module):
    """A branch that mixes channels and is silent, as its last norm is zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)
        self.norm, self.last, self.linear = nn.BatchNorm2d(16), nn.Conv2d(16, 24, 1), nn.Linear(24, 5)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.norm(self.b(self.a(x).flip(1)))
        return self.linear(self.last(x).mean((2, 3)))


def test_a_silent_branch_hides_no_mixing() -> None:
    elastic = ElasticCNN.from_model(Silent().eval(), IMAGE_SHAPE)
    assert [group.name for group in elastic.groups] == ["last"]
    assert "slicing it changes other channels" in {i.name: i.reason for i in elastic.unprunable}["a"]


class Detached(nn.Module):
    """A gate on the input, by a threshold that passes no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.gate = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(8, 16)
        self.last, self.linear = nn.Conv2d(16, 24, 1), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = (self.gate(x.mean((2, 3))).sigmoid() > 0.5).float()[:, :, None, None]
        return self.linear(self.last(self.conv(x) * gate).relu().mean((2, 3)))


def test_a_gate_that_passes_no_gradient_is_left_alone() -> None:
    elastic = ElasticCNN.from_model(Detached(), IMAGE_SHAPE)
    assert [group.name for group in elastic.groups] == ["last"]
    assert "`rlprune gate` builds gates" in {item.name: item.reason for item in elastic.unprunable}["gate"]


def test_layers_of_other_kinds_are_named() -> None:
    model = nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    with pytest.raises(ModelError, match="1: a Conv1d is no layer of a kind that can be pruned"):
        ElasticCNN.from_model(nn.Sequential(*model, nn.Linear(16, 5)), IMAGE_SHAPE)


class Seven(nn.Module):
    """Seven branches that can be dropped, so 128 drop patterns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(8, 8, 1) for _ in range(7)))
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.blocks(self.stem(x)).mean((2, 3)))


@torch.no_grad()
def test_what_is_remembered_of_drop_patterns_is_bounded() -> None:
    torch.manual_seed(0)
    elastic = randomise_levels(ElasticCNN.from_model(randomise_norms(Seven()), (3, 4, 4), keep_ratios=(0, 1)))
    images, patterns = (
        make_images(2)[:, :, :4, :4],
        torch.randint(2, (400, 7), generator=torch.Generator().manual_seed(0)),
    )
    assert len(patterns.unique(dim=0)) > 100
    sizes = []
    for pattern in patterns:
        logits = elastic(images, pattern)
        sizes.append(len(elastic._runs))
    assert max(sizes) == 64
    for pattern in patterns[:20]:  # some of them forgotten meanwhile
        logits = elastic(images, pattern)
        assert relative_error(logits, elastic(images, pattern.expand(2, -1))) < 1e-5


def test_from_model_leaves_the_model_alone() -> None:
    model = network("residual").train()
    before = copy.deepcopy(model.state_dict())
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    for parameter in elastic.parameters():
        parameter.data.zero_()
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Scaled(nn.Module):
    """A branch that mixes channels, behind a scale that is zero before training."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.stem, self.c1, self.c2 = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.scale, self.linear = nn.Parameter(torch.tensor(scale)), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.scale * self.c2(self.c1(x).softmax(1))
        return self.linear(x.relu().mean((2, 3)))


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0])
def test_a_scale_that_is_zero_hides_no_mixing(scale: float) -> None:
    torch.manual_seed(0)
    model = Scaled(scale).eval()
    with pytest.raises(ModelError, match="c1: slicing it changes other channels"):
        ElasticCNN.from_model(model, IMAGE_SHAPE)
    assert float(model.scale.detach()) == pytest.approx(scale)


class Products(nn.Module):
    """Pools features by products of them, or, with a view of a fixed size, cannot be narrower."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3)
        self.c, self.fixed, self.linear = nn.Conv2d(16, 4, 1), fixed, nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(self.stem(x).relu()).relu()).relu()
        if self.fixed:
            return self.linear(x.view(x.size(0), 16, 2, -1).mean((2, 3)))
        weights = self.c(x).flatten(2).softmax(2)
        return self.linear(torch.bmm(x.flatten(2), weights.transpose(1, 2)).mean(2))


@pytest.mark.parametrize("fixed", [False, True])
def test_what_costs_by_its_channels_and_is_no_layer_is_left_alone(
    fixed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    elastic = ElasticCNN.from_model(Products(fixed), IMAGE_SHAPE)
    assert [group.name for group in elastic.groups] == ["a"]
    reasons = {item.name: item.reason for item in elastic.unprunable}
    if not fixed:
        assert reasons["b"] == "what bmm costs goes by its channels, and is counted for layers alone"
        assert reasons["c"] == "no layer behind it reads its channels one by one"
    assert reasons["linear"] == "the network's output"
    assert "Traceback" not in capsys.readouterr().err


def test_a_layer_that_is_called_twice_is_left_alone_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.same, self.a = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 1)
            self.linear = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.same(self.same(self.stem(x)).relu()).relu()
            return self.linear(self.a(x).relu().mean((2, 3)))

    elastic = ElasticCNN.from_model(Twice(), IMAGE_SHAPE)
    assert [item.name for item in elastic.unprunable] == ["stem", "same", "linear"]
