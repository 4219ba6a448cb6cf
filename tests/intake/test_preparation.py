"""What counts where several things say how a network's pictures are prepared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from my_recipe import RECIPE
from nets import network

from rlprune.data.preprocessing_forms import IMAGENET, parse
from rlprune.intake.options import DataOptions
from rlprune.intake.preparation import load_for, note_of
from rlprune.models.weights import save_weights
from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.steps import Steps
from rlprune.storage.data_format import DataFormat

pytestmark = pytest.mark.usefixtures("apart")
NOTED = DataFormat((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), ("a", "b"), parse("bgr"))
DATA = DataOptions("my_data:five_colours")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_weights(network("residual"), tmp_path / "noted.safetensors", note_of(NOTED))
    return tmp_path / "noted.safetensors"


def test_what_the_user_says_counts_before_the_weights_and_these_before_the_library(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = load_for("my_nets:build", DATA, weights, trained=True).test
    assert (noted.mean, noted.std, noted.preprocessing.bgr) == (NOTED.mean, NOTED.std, True)
    assert f"as {weights} was trained: bgr,mean=0.1,0.2,0.3" in capsys.readouterr().err
    said = load_for("timm:resnet18", replace(DATA, preprocess="imagenet"), weights, trained=True).test
    assert (said.mean, said.std, said.preprocessing.bgr) == (*IMAGENET, False)
    assert capsys.readouterr().err == ""
    sized = load_for("torchvision:resnet18", replace(DATA, image_size=8), trained=True).test
    assert sized.images.shape[2:] == (8, 8) and sized.mean == IMAGENET[0]
    assert "as torchvision says of torchvision:resnet18: interpolation" not in capsys.readouterr().err
    own = load_for("torchvision:resnet18", DATA, trained=True).test
    assert own.images.shape[2:] == (224, 224)
    fresh = load_for("torchvision:resnet18", DATA, Path("none")).test
    assert fresh.images.shape[2:] != (224, 224) and fresh.mean != IMAGENET[0]


def test_a_recipe_takes_it_from_its_weights_and_keeps_it(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = replace(Recipe.read(tmp_path / "recipe.toml"), weights=weights.name, teacher=None, final_teachers=[])
    steps = Steps(recipe, tmp_path / "run", tmp_path)
    assert steps.splits.test.mean == NOTED.mean
    steps.dense()
    weights.unlink()
    again = Steps(recipe, tmp_path / "run", tmp_path).splits.test
    assert (again.mean, again.preprocessing.bgr) == (NOTED.mean, True)
