from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from rlprune.errors import RLPruneError
from rlprune.pipelines.options import DataOptions
from rlprune.pipelines.recipe import Recipe, SearchSettings, TrainedNetwork
from rlprune.training.adaptation import SpecialiseSettings

RECIPES = sorted((Path(__file__).parents[2] / "runs" / "reference").rglob("recipe.toml"))
LEAST = """
model = "resnet20"
[data]
data = "cifar10"
"""
FULL = """
model = "resnet20"
weights = "resnet20.safetensors"
penalties = [1, 0.5]
seed = 3
[data]
data = "cifar10"
shares = [0.9, 0.08, 0.02]
image_size = 16
[teacher]
model = "resnet56"
weights = "resnet56.safetensors"
[dense]
epochs = 2
learning_rate = 1
views = 4
bf16 = true
[elastic]
keep_ratios = [0, 0.5, 1]
[adapt]
n_random = 1
sandwich = false
[search]
budgets = [0.5, 1]
[policy]
penalty = 0
hidden = [32]
action = "levels"
[tune]
rounds = 2
"""


def read(tmp_path: Path, text: str) -> Recipe:
    (tmp_path / "recipe.toml").write_text(text)
    return Recipe.read(tmp_path / "recipe.toml")


def test_what_is_not_said_is_the_default(tmp_path: Path) -> None:
    assert read(tmp_path, LEAST) == Recipe("resnet20", DataOptions("cifar10"))


def test_everything_can_be_said(tmp_path: Path) -> None:
    recipe = read(tmp_path, FULL)
    assert (recipe.weights, recipe.seed) == ("resnet20.safetensors", 3)
    assert recipe.data == DataOptions("cifar10", image_size=16, shares=(0.9, 0.08, 0.02))
    assert recipe.teacher == TrainedNetwork("resnet56", "resnet56.safetensors")
    assert (recipe.dense.epochs, recipe.dense.views, recipe.dense.bf16) == (2, 4, True)
    assert (recipe.adapt.n_random, recipe.adapt.sandwich, recipe.specialise.sandwich) == (1, False, True)
    assert (recipe.policy.action, recipe.tune.rounds) == ("levels", 2)


def test_lists_become_tuples_and_whole_numbers_floats(tmp_path: Path) -> None:
    recipe = read(tmp_path, FULL)
    for found, expected in (
        (recipe.penalties, (1.0, 0.5)),
        (recipe.search.budgets, (0.5, 1.0)),
        (recipe.data.shares, (0.9, 0.08, 0.02)),
        (recipe.elastic.keep_ratios, (0.0, 0.5, 1.0)),
        (recipe.policy.hidden, (32,)),
        ((recipe.dense.learning_rate, recipe.policy.penalty), (1.0, 0.0)),
    ):
        assert found == expected
        assert [type(value) for value in found] == [type(value) for value in expected]


def test_it_says_again_as_json_what_it_was_told(tmp_path: Path) -> None:
    written = json.loads(json.dumps(read(tmp_path, FULL).to_json()))
    assert written["penalties"] == [1, 0.5] and written["policy"]["hidden"] == [32]
    assert written["data"]["shares"] == [0.9, 0.08, 0.02] and written["teacher"]["model"] == "resnet56"
    assert set(written) == {field.name for field in fields(Recipe)}


OTHERS = {
    "teacher": TrainedNetwork,
    "final_teachers": TrainedNetwork,
    "reference": TrainedNetwork,
    "refit": SpecialiseSettings,
}
"""What may be left out whole."""


def recipe_with(path: str, value: str) -> str:
    """The shortest recipe, and this setting."""
    tables = {"": {"model": '"x"'}, "data": {"data": '"x"'}}
    section, _, name = path.rpartition(".")
    tables.setdefault(section, {})[name] = value
    head = {section: f"[{section}]" if section else "" for section in tables}
    rows = {section: [f"{name} = {value}" for name, value in table.items()] for section, table in tables.items()}
    return "\n".join("\n".join([head[section], *rows[section]]) for section in tables)


def paths(kind: Any, prefix: str = "") -> list[str]:
    """All settings."""
    found = []
    for name, hint in get_type_hints(kind).items():
        kind = OTHERS.get(name, hint)
        found += paths(kind, f"{name}.") if is_dataclass(kind) else [prefix + name]
    return found


@pytest.mark.parametrize("path", [path for path in paths(Recipe) if path.partition(".")[0] not in OTHERS])
def test_a_value_of_a_wrong_type_is_named_whatever_the_setting(tmp_path: Path, path: str) -> None:
    with pytest.raises(RLPruneError, match=rf'recipe\.toml: wrong value type for field "{path}" - should be'):
        read(tmp_path, recipe_with(path, "{odd = 1}"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("mode", "1", 'can not match "mode" to any data class field'),
        ("data.name", "1", 'can not match "name" to any data class field'),
        ("tune.round", "1", 'can not match "round" to any data class field'),
        ("seed", "0.5", 'field "seed" - should be "int" instead of value "0.5" of type "float"'),
        ("seed", "true", 'field "seed" - should be "int" instead of value "True" of type "bool"'),
        ("penalties", "0.1", 'field "penalties" - should be "list" instead of value "0.1" of type "float"'),
        ("penalties", '"0.1"', 'field "penalties" - should be "list" instead of value "0.1" of type "str"'),
        ("penalties", '["0.1"]', 'field "penalties" - should be "float" instead of value "0.1" of type "str"'),
        ("dense.learning_rate", '"0.1"', 'field "dense.learning_rate" - should be "float" instead of value "0.1"'),
        ("dense.learning_rate", "true", 'field "dense.learning_rate" - should be "float" instead of value "True"'),
        ("adapt.epochs", "1.5", 'field "adapt.epochs" - should be "int" instead of value "1.5"'),
        ("adapt.sandwich", "1", 'field "adapt.sandwich" - should be "bool" instead of value "1"'),
        ("search.budgets", "1", 'field "search.budgets" - should be "list" instead of value "1"'),
        ("policy.hidden", "[1.5]", 'field "policy.hidden" - should be "int" instead of value "1.5"'),
        ("policy.action", '"all"', 'field "policy.action"'),
        ("teacher.model", '"x"', 'missing value for field "teacher.weights"'),
        ("reference.weights", '"x"', 'missing value for field "reference.model"'),
        ("reference", '"x"', 'wrong value type for field "reference"'),
        ("final_teachers.model", '"x"', 'missing value for field "final_teachers.weights"'),
        ("final_teachers", '"x"', 'wrong value type for field "final_teachers"'),
        ("refit.epochs", '"two"', 'field "refit'),
        ("data.shares", "[0.5, 0.5]", 'field "data.shares"'),
        ("data.shares", "[0.2, 0.3, 0.3, 0.2]", 'field "data.shares"'),
        ("adapt.epochs", "-1", r"epochs=-1, batch_size=128, learning_rate=0\.05: allowed are 0 or more, 1 or more"),
        ("tune.floor", "1", "rounds=1, floor=1: allowed are 0 or more, and 2 to batch_size=256"),
        ("policy.max_passes", "4", "max_passes=4"),
        ("search.budgets", "[1, 0.5]", r"budgets=\(1\.0, 0\.5\), n_images=2000: allowed are 1 to 16 ascending shar"),
        ("search.budgets", "[]", r"budgets=\(\), n_images"),
        ("search.budgets", "[0, 1]", r"budgets=\(0\.0, 1\.0\)"),
        ("search.n_images", "0", "n_images=0"),
        (
            "specialise.shares",
            "[1, 1, 1, 1]",
            r"specialise\.shares=\(1\.0, .*: give one for each profile that is .* 3 at",
        ),
        ("refit.shares", "[1, 1, 1, 1]", r"refit\.shares=\(1\.0, .*: give one for each profile that is found"),
        (
            "specialise.shares",
            "[1, -1]",
            r"shares=\(1\.0, -1\.0\): allowed are numbers of 0 or more, not all of them 0",
        ),
        ("specialise.shares", "[0, 0]", r"shares=\(0\.0, 0\.0\): allowed"),
        ("specialise.shares", "[nan]", r"shares=\(nan,\): allowed"),
        ("penalties", "[-1]", r"penalties=\(-1\.0,\): allowed are numbers of 0 or more, each once, and other than"),
        ("penalties", "[nan]", r"penalties=\(nan,\)"),
        ("penalties", "[1, 1]", r"penalties=\(1\.0, 1\.0\)"),
        ("penalties", "[0.3]", r"penalties=\(0\.3,\): .* the policy's own, which is 0\.3"),
        ("penalties", "[0.30000001]", r"penalties=\(0\.30000001,\)"),  # its folder would be that of 0.3
        ("refit.epochs", "2", r"policy\.pool=2: its policies read features of the stem, which a refit changes"),
        ("refit_weights", '"public.pt"', r"refit_weights='public\.pt': nothing begins with them; add a \[refit\]"),
        (
            "policy.penalty_range",
            "[0.1, 1]",
            r"policy\.penalty_range=\(0\.1, 1\.0\): a recipe learns a policy for each",
        ),
        ("penalties", "[", "is no TOML: "),
        ("seed", "0\nseed = 0", "is no TOML: Cannot overwrite a value"),
    ],
)
def test_mistakes_name_file_and_field(tmp_path: Path, path: str, value: str, message: str) -> None:
    with pytest.raises(RLPruneError, match=rf"recipe\.toml:? .*{message}"):
        read(tmp_path, recipe_with(path, value))


def test_a_refit_that_leaves_the_stem_alone_may_follow_policies_that_see_its_features(tmp_path: Path) -> None:
    recipe = read(tmp_path, recipe_with("refit.separate", "true"))
    assert recipe.policy.pool and recipe.refit is not None and recipe.refit.separate
    with pytest.raises(RLPruneError, match=r"policy\.pool=2: .* and no refit_weights"):
        replace(recipe, refit_weights="public.pt")


@pytest.mark.parametrize(
    ("text", "field"), [('model = "x"', "data"), ("[data]\ndata = 'x'", "model"), ("model = 'x'\n[data]", "data.data")]
)
def test_what_must_be_said_is_named(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(RLPruneError, match=rf'recipe\.toml: missing value for field "{field}"'):
        read(tmp_path, text)


def test_a_file_that_is_no_text_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RLPruneError, match=r"recipe\.toml: 'utf-8' codec"):
        Recipe.read(tmp_path / "recipe.toml")
    (tmp_path / "recipe.toml").write_bytes('model = "möbel"\n[data]\ndata = "x"'.encode())
    assert Recipe.read(tmp_path / "recipe.toml").model == "möbel"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_the_recipes_of_this_project_can_be_read(path: Path) -> None:
    recipe = Recipe.read(path)
    assert asdict(recipe) == recipe.to_json() and recipe.penalties


def test_as_many_budgets_as_a_codebook_has_room_for() -> None:
    assert len(SearchSettings(tuple(n / 16 for n in range(1, 17))).budgets) == 16
    with pytest.raises(RLPruneError, match="allowed are 1 to 16 ascending shares"):
        SearchSettings(tuple(n / 17 for n in range(1, 18)))
