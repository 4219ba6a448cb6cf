from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import make_elastic, make_images
from torch import nn

from rlprune.elastic.axes import Axis, Run
from rlprune.elastic.layers import Choice, ElasticConv2d, ElasticLinear
from rlprune.elastic.norms import ElasticBatchNorm


@st.composite
def axes(draw: st.DrawFn) -> tuple[Axis, list[int], list[int]]:
    """An axis of up to four groups with gaps between them; channels of each group, and widths."""
    runs, position = [], 0
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    for group, size in enumerate(sizes):
        position += draw(st.integers(0, 3))
        repeat = draw(st.integers(1, 3))
        runs.append((group, Run(position, 0, size, repeat)))
        position += size * repeat
    widths = [draw(st.integers(0, size)) for size in sizes]
    return Axis(position + draw(st.integers(0, 3)), runs), sizes, widths


@settings(deadline=None)
@given(axes())
def test_an_axis_keeps_the_first_channels_of_every_group_and_all_others(
    case: tuple[Axis, list[int], list[int]],
) -> None:
    axis, _, widths = case
    positions = torch.arange(axis.size)[axis.kept(widths)].tolist()
    owners = {p: (g, run.channel + (p - run.start) // run.repeat) for g, run in axis.runs for p in span(run)}
    assert positions == [p for p in range(axis.size) if p not in owners or owners[p][1] < widths[owners[p][0]]]
    assert len(positions) == axis.n_fixed + sum(axis.count(group, width) for group, width in enumerate(widths))


@settings(deadline=None)
@given(axes(), st.integers(0, 1000))
def test_an_axis_in_another_order_is_a_permutation_of_each_group_s_positions(
    case: tuple[Axis, list[int], list[int]], seed: int
) -> None:
    axis, sizes, _ = case
    generator = torch.Generator().manual_seed(seed)
    for group, size in enumerate(sizes):
        order = torch.randperm(size, generator=generator)
        targets, sources = axis.positions(group, order)
        assert sorted(targets.tolist()) == sorted(sources.tolist())
        assert axis.channel[sources].tolist() == order[axis.channel[targets]].tolist()


def span(run: Run) -> range:
    return range(run.start, run.start + run.n_channels * run.repeat)


def test_what_a_layer_is_made_of() -> None:
    layers = make_elastic("plain").elastic_layers()
    kinds = {name: type(layer) for name, layer in layers.items()}
    assert kinds == {
        "features.3": ElasticConv2d,
        "features.4": ElasticBatchNorm,
        "features.7": ElasticConv2d,
        "classifier.1": ElasticLinear,
        "classifier.4": ElasticLinear,
    }


def test_norms_have_one_set_per_level_of_the_group_consumed_before_or_else_of_their_own() -> None:
    elastic = make_elastic("residual")
    layers = elastic.elastic_layers()
    switch = {name: layer.switch for name, layer in layers.items() if isinstance(layer, ElasticBatchNorm)}
    assert switch == {"b1.bn1": 0, "b1.bn2": 0, "b2.bn1": 1, "b2.bn2": 1, "b3.bn1": 2, "b3.bn2": 2}
    assert layers["b1.bn1"].weight.shape == (5, 16)
    assert layers["b1.bn2"].running_mean.shape == (5, 16)


def test_a_norm_behind_a_depthwise_convolution_follows_the_group_that_it_carries() -> None:
    layers = make_elastic("depthwise").elastic_layers()
    for block in ("b1", "b2", "b3"):
        norms = [layers[f"{block}.bn{n}"] for n in (1, 2, 3)]
        assert all(isinstance(norm, ElasticBatchNorm) and norm.weight.shape[0] == 5 for norm in norms)
        own = norms[0].out_axis.only_group
        assert [norm.switch for norm in norms] == [own] * 3 and own is not None
    assert make_elastic("concat").elastic_layers()["bn"].weight.shape[0] == 1  # of two groups and fixed channels


def test_a_norm_without_scale_or_momentum_is_the_plain_norm() -> None:
    norm = nn.BatchNorm2d(4, affine=False, momentum=None).eval()
    norm.running_mean.normal_()
    elastic = ElasticBatchNorm(norm, Axis(4), None, 3, False).eval()
    choice = Choice(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    x = torch.randn(2, 4, 3, 3)
    assert torch.allclose(elastic(x, choice), norm(x), atol=1e-6)
    assert torch.equal(elastic.plain(choice).eval()(x), elastic(x, choice))


def test_padding_modes_survive() -> None:
    conv = nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="reflect", dilation=2)
    elastic = ElasticConv2d(conv, Axis(3), Axis(4))
    choice = Choice(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    x = make_images(2)
    assert torch.equal(elastic(x, choice), conv(x))
    assert torch.equal(elastic.plain(choice)(x), conv(x))


def test_same_padding_survives() -> None:
    conv = nn.Conv2d(3, 4, 3, padding="same", groups=1)
    elastic = ElasticConv2d(conv, Axis(3), Axis(4))
    choice = Choice(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    x = make_images(2)
    assert torch.equal(elastic(x, choice), conv(x))
    assert torch.equal(elastic.plain(choice)(x), conv(x))
