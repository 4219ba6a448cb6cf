"""Importance from gradients on calibration images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from nets import IMAGE_SHAPE, KINDS, make_data, make_elastic, network, relative_error

from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.importance import GRADIENT_SCORES, criterion, measure_gradients
from rlprune.elastic.layers import ElasticConv2d
from rlprune.errors import ModelError

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
