from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from my_recipe import RECIPE
from nets import make_elastic, network
from torch import Tensor, nn

from rlprune.data.loading import load
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import ModelError
from rlprune.models.weights import save_weights
from rlprune.pipelines.recipe import Recipe, TrainedNetwork
from rlprune.pipelines.teachers import Teachers
from rlprune.storage.networks import save_network
from rlprune.training.distillation import Ensemble, cache_teacher_logits


@pytest.fixture
def root(tmp_path: Path, apart: None) -> Path:
    """A folder with a recipe, and networks that it may name."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    for seed, name in ((3, "taught"), (4, "known"), (5, "dense")):
        save_weights(network("residual", seed=seed), tmp_path / f"{name}.safetensors")
    return tmp_path


def teachers_of(root: Path, **changed: Any) -> Teachers:
    recipe = replace(Recipe.read(root / "recipe.toml"), **changed)
    return Teachers(recipe, root, root, recipe.data.load())


def elastic_in(folder: Path, **of_images: Any) -> ElasticCNN:
    """An elastic network that was saved there."""
    elastic = make_elastic("residual")
    images = replace(load("my_data:five_colours", shares=(0.5, 0.4, 0.1)).network, **of_images)
    save_network(folder, elastic, images, {"model": "nets:Residual"})
    return elastic


def same(one: nn.Module, other: nn.Module) -> bool:
    there = other.state_dict()
    return all(torch.equal(value, there[name]) for name, value in one.state_dict().items())


def test_what_was_remembered_is_taken_where_a_training_sees_these_views(root: Path) -> None:
    teachers = teachers_of(root)
    teachers.cache_logits()
    recipe = teachers.recipe
    remembered = teachers.final(recipe.specialise)
    assert isinstance(remembered, Tensor) and remembered.shape == (40, 2, 5)
    assert all(isinstance(teachers.final(each), Tensor) for each in (recipe.dense, recipe.tune))
    for other in (recipe.adapt, *(replace(recipe.tune, **c) for c in ({"padding": 2}, {"flip": False}, {"views": 3}))):
        live = teachers.final(other)  # of these views nothing is remembered
        assert isinstance(live, nn.Module) and same(live, network("residual", seed=3))


def test_where_none_is_named_the_dense_network_teaches(root: Path) -> None:
    teachers = teachers_of(root, teacher=None)
    teachers.cache_logits()
    for of in (teachers.first(teachers.recipe.adapt), teachers.final(teachers.recipe.specialise), teachers.for_refit()):
        assert isinstance(of, nn.Module) and same(of, network("residual", seed=5))
    assert not list(root.glob("teacher*"))


def test_of_several_final_teachers_the_mean_is_remembered(root: Path) -> None:
    elastic = elastic_in(root / "elastic")
    names = [TrainedNetwork("nets:Residual", "known.safetensors"), TrainedNetwork("nets:Residual", "elastic")]
    specialise = Recipe.read(root / "recipe.toml").specialise
    teachers = teachers_of(root, final_teachers=names, refit=replace(specialise, separate=True))
    teachers.cache_logits()
    both = Ensemble([network("residual", seed=4).eval(), elastic.slice(elastic.full)])
    for found, images in (
        (teachers.final(specialise), teachers.splits.network),
        (teachers.for_refit(), teachers.splits.training),
    ):
        assert isinstance(found, Tensor)
        assert torch.allclose(found.float(), cache_teacher_logits(both, images, specialise).float(), atol=1e-2)
    first = teachers.first(specialise)
    assert isinstance(first, nn.Module) and same(first, network("residual", seed=3))


@pytest.mark.parametrize(
    ("model", "of_images", "message"),
    [
        (
            "nets:Residual",
            {"mean": (0.1, 0.2, 0.3)},
            "elastic was trained on images of another shape, other classes",
        ),
        ("nets:Plain", {}, "elastic holds a network made of nets:Residual, not of nets:Plain"),
    ],
)
def test_a_teacher_is_the_one_named_and_knows_these_images(
    root: Path, model: str, of_images: dict[str, Any], message: str
) -> None:
    elastic_in(root / "elastic", **of_images)
    teachers = teachers_of(root, final_teachers=[TrainedNetwork(model, "elastic")])
    with pytest.raises(ModelError, match=message):
        teachers.cache_logits()
    shutil.rmtree(root / "elastic")
    with pytest.raises(ModelError, match="there is no weights file elastic in"):
        teachers.cache_logits()
