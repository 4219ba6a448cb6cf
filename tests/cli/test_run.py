"""The verb `run`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from my_recipe import RECIPE
from nets import network

from rlprune.cli.main import RunRecipe, main
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import RLPruneError
from rlprune.intake.options import DataOptions
from rlprune.models.weights import save_weights
from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.steps import Steps
from rlprune.storage.networks import load_network

pytest.importorskip("matplotlib")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a recipe and the weights that it names."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    for seed, name in ((3, "taught"), (4, "known")):
        save_weights(network("residual", seed=seed), tmp_path / f"{name}.safetensors")
    monkeypatch.delenv("RLPRUNE_DATA", raising=False)
    monkeypatch.delenv("RLPRUNE_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # also puts sys.path back, which every main() adds to
    return tmp_path


def test_the_command_line_knows_all_steps_and_no_others() -> None:
    assert get_type_hints(RunRecipe)["until"].__args__ == Steps.NAMES
    with pytest.raises(RLPruneError, match=r"step 'tuning' is unknown; allowed: teacher, dense, .*, evaluate"):
        Steps(Recipe("x", DataOptions("x")), Path("out"), Path()).run("tuning")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "bad/recipe.toml cannot be read (No such file or directory); name the TOML file of a recipe"),
        ("model =", "bad/recipe.toml is no TOML: Invalid value"),
        (RECIPE + "round = 1", "bad/recipe.toml: tune.round=1: there is no such setting; did you mean rounds?"),
        (
            RECIPE.replace("floor = 4", 'floor = "4"'),
            "bad/recipe.toml: tune.floor='4': give a whole number of 2 or more",
        ),
        (RECIPE.replace("taught.saf", "none.saf"), "there is no weights file none.safetensors in bad; let RLPRUNE_WEI"),
        (
            RECIPE.replace('weights = "', 'weights = "../').replace("five", "six"),
            "'my_data:six_colours' failed with Attri",
        ),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    if text is not None:
        (root / "bad").mkdir()
        (root / "bad" / "recipe.toml").write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main(["run", "bad/recipe.toml"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "rror" in line]
    assert len(lines) == 1 and lines[0].startswith("rlprune: error: ") and message in lines[0]
    assert not [path for path in (root / "runs").rglob("*") if path.is_file()]


def test_a_run_is_called_as_the_folder_of_its_recipe_and_may_have_another_seed(root: Path) -> None:
    (root / "mine").mkdir()
    for name in ("recipe.toml", "taught.safetensors", "known.safetensors"):
        shutil.copy(root / name, root / "mine")
    main(["run", "mine/recipe.toml", "--until", "teacher", "--seed", "4"])
    made = root / "runs" / "mine"
    assert sorted(path.name for path in made.iterdir()) == ["steps", "teacher.safetensors"]
    assert json.loads((made / "steps" / "teacher.json").read_text())[0] == 4


def test_weights_that_are_needed_last_are_missed_first(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "known.safetensors").unlink()  # the reference's
    with pytest.raises(SystemExit, match="2"):
        main(["run", "recipe.toml", "--out", "out"])
    assert "there is no weights file known.safetensors" in capsys.readouterr().err
    assert not (root / "out").exists()


@pytest.mark.parametrize(("rewards", "kept"), [([0.5, 0.4], 0), ([0.5, 0.5, 0.4], 1), ([0.5, 0.6, 0.7], 2)])
def test_tuning_goes_on_while_it_pays_and_leaves_the_best_network_and_its_policies(
    root: Path, monkeypatch: pytest.MonkeyPatch, rewards: list[float], kept: int
) -> None:
    weights: list[list[torch.Tensor]] = []

    def said(dynamic: DynamicCNN, data: ImageSet, penalty: float, paid: str) -> float:
        assert (len(data), penalty, paid) == (32, 0.1, "macs")
        weights.append(list(dynamic.elastic.state_dict().values()))
        return rewards[len(weights) - 1]

    with monkeypatch.context() as patch:
        patch.setattr("rlprune.pipelines.steps.mean_reward", said)
        main(["run", "recipe.toml", "--out", "run", "--until", "tune"])
    assert json.loads(Path("run/tuning/rewards.json").read_text()) == rewards
    tuned = list(load_network(Path("run/tuned")).network.state_dict().values())
    assert [all(map(torch.equal, tuned, each)) for each in weights] == [n == kept for n in range(len(rewards))]
    made = {path: path.read_bytes() for path in Path("run/policies").rglob("*") if path.is_file()}
    assert {path.parts[2] for path in made} == {"0.1", "2"}
    assert {Path(f"run/tuning/policies-{kept}", *path.parts[2:]).read_bytes() == made[path] for path in made} == {True}
    main(["run", "recipe.toml", "--out", "run", "--until", "policies"])
    assert made == {path: path.read_bytes() for path in Path("run/policies").rglob("*") if path.is_file()}
