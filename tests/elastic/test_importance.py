from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from nets import IMAGE_SHAPE, KINDS, make_data, make_elastic, network, relative_error
from torch import nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.importance import GRADIENT_SCORES, WEIGHT_CRITERIA, bn_scale, criterion, l1, l2, measure_gradients
from rlprune.elastic.layers import ElasticConv2d
from rlprune.errors import ModelError


def chain() -> nn.Sequential:
    """stem -> conv of 16 channels -> norm -> flat linear layer that reads each channel at 4 positions."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 16, 1),
        nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    return model.eval()


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
def test_weight_norms_add_up_over_what_makes_and_what_reads_a_channel(name: str, power: int) -> None:
    elastic = ElasticCNN.from_model(chain(), IMAGE_SHAPE)
    layers = elastic.elastic_layers()
    made = layers["1"].weight.detach().abs().pow(power).sum((1, 2, 3)).pow(1 / power)
    columns = layers["5"].weight.detach().abs().pow(power).sum(0).pow(1 / power)
    expected = made / made.mean() + (columns / columns.mean()).view(16, 4).sum(1)
    scores = criterion(name, elastic)(elastic.layers_of(0), 16)
    assert torch.allclose(scores, expected, rtol=1e-5)


def test_bn_scale_is_the_absolute_scale() -> None:
    model = chain()
    nn.init.normal_(model[2].weight)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE, importance="bn_scale")
    expected = model[2].weight.detach().abs().sort(descending=True).values
    assert torch.equal(bn_scale(elastic.layers_of(0), 16), expected)


def test_a_layer_s_scale_does_not_matter() -> None:
    elastic = ElasticCNN.from_model(chain(), IMAGE_SHAPE)
    before = [score(elastic.layers_of(0), 16) for score in (l1, l2)]
    elastic.elastic_layers()["5"].weight.data.mul_(100)
    after = [score(elastic.layers_of(0), 16) for score in (l1, l2)]
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["l1", "l2"])
def test_channels_are_ranked_by_falling_importance(kind: str, name: str) -> None:
    elastic = ElasticCNN.from_model(network(kind), IMAGE_SHAPE, importance=name, residual=True)
    for index, group in enumerate(elastic.groups):
        scores = WEIGHT_CRITERIA[name](elastic.layers_of(index), group.n_channels)
        assert (scores.diff() <= 1e-5).all()


def test_channels_of_zeros_come_last() -> None:
    model = chain()
    dead = torch.tensor([0, 3, 4, 9])
    model[1].weight.data[dead] = 0
    model[5].weight.data.view(5, 16, 4)[:, dead] = 0
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE, round_to=4)
    norms = elastic.elastic_layers()["1"].weight.flatten(1).norm(dim=1)
    assert ((norms == 0).nonzero().flatten() == torch.arange(12, 16)).all()


def test_bn_scale_needs_a_norm_in_every_group() -> None:
    with pytest.raises(ModelError, match="'bn_scale' needs a batch norm in every group; choose 'l1' or 'l2'"):
        ElasticCNN.from_model(network("plain"), IMAGE_SHAPE, importance="bn_scale")


def test_an_unknown_criterion_is_refused() -> None:
    with pytest.raises(ModelError, match="importance 'magic' is unknown; allowed: l1, l2, bn_scale"):
        criterion("magic", make_elastic("plain"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_s_layers_hold_all_of_its_channels(kind: str) -> None:
    elastic = make_elastic(kind)
    for index, group in enumerate(elastic.groups):
        for _, _, positions, channels in elastic.layers_of(index):
            assert set(channels.tolist()) == set(range(group.n_channels))
            assert len(positions) % group.n_channels == 0


DATA = make_data(12)
names = pytest.mark.parametrize("name", list(GRADIENT_SCORES))


@pytest.mark.parametrize("kind", KINDS)
@names
def test_channels_are_ranked_by_falling_importance_and_nothing_else_changes(kind: str, name: str) -> None:
    model = network(kind)
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE, importance=name, calibration=DATA, residual=True)
    with torch.no_grad():
        images = DATA.normalised()
        assert relative_error(elastic(images), model(images)) < 1e-5
    score = criterion(name, elastic, DATA)
    for index, group in enumerate(elastic.groups):
        scores = score(elastic.layers_of(index), group.n_channels)
        assert scores.isfinite().all() and scores.max() > 0
        assert (scores.diff() <= 1e-5 * scores.max()).all()


def test_gradients_are_those_of_single_images() -> None:
    elastic = make_elastic("plain")
    images, labels = DATA.normalised(), DATA.labels
    layer = next(layer for layer in elastic.elastic_layers().values() if isinstance(layer, ElasticConv2d))
    single = []
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(elastic(image[None], elastic.full), label[None])
        single.append(torch.autograd.grad(loss, layer.weight)[0])
    found, expected = measure_gradients(elastic, DATA)[layer], torch.stack(single)
    assert relative_error(found.mean, expected.mean(0)) < 1e-4
    assert relative_error(found.absolute, expected.abs().mean(0)) < 1e-4
    assert relative_error(found.square, expected.square().mean(0)) < 1e-4
    assert all(parameter.grad is None for parameter in elastic.parameters())
    with torch.no_grad():
        few = measure_gradients(elastic, DATA, n_images=3)[layer]
    assert relative_error(few.mean, expected[[0, 6, 11]].mean(0)) < 1e-4


@pytest.mark.parametrize("name", ["taylor", "hessian"])
def test_a_channel_that_nothing_depends_on_comes_last(name: str) -> None:
    model = network("residual")
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    made, read = (
        next(layer for layer, axis, *_ in elastic.layers_of(0) if axis == side and isinstance(layer, ElasticConv2d))
        for side in ("out", "in")
    )
    with torch.no_grad():
        read.weight[:, 0] = 0
        made.weight[0] = 0
    scores = criterion(name, elastic, DATA)(elastic.layers_of(0), elastic.groups[0].n_channels)
    assert scores[0] == 0 and scores.max() > 0


@names
def test_without_images_it_is_said(name: str) -> None:
    with pytest.raises(ModelError, match="there are no calibration images to rank channels by; give some"):
        ElasticCNN.from_model(
            network("plain"), IMAGE_SHAPE, importance=name, calibration=make_data(1).subset(slice(0, 0))
        )
    with pytest.raises(ModelError, match=f"importance '{name}' needs calibration images, and none are given"):
        ElasticCNN.from_model(network("plain"), IMAGE_SHAPE, importance=name)
