from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from rlprune.agents.settings import PolicySettings
from rlprune.errors import RLPruneError, SettingsError
from rlprune.intake.options import DataOptions
from rlprune.pipelines.recipe import Recipe, SearchSettings, StaticNetworkSettings, TrainedNetwork
from rlprune.pipelines.step_settings import settings_of, told
from rlprune.training.adaptation import SpecialiseSettings
from rlprune.training.settings import TrainingSettings

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


def test_a_device_is_for_all_trainings_and_notes_of_steps_do_not_know_it(tmp_path: Path) -> None:
    recipe = read(tmp_path, LEAST + "[refit]\nseparate = true\n")
    elsewhere = recipe.on("cpu:0")
    assert recipe.refit is not None and elsewhere.refit is not None
    trainings = (elsewhere.dense, elsewhere.adapt, elsewhere.specialise, elsewhere.tune, elsewhere.refit)
    assert {each.device for each in trainings} == {"cpu:0"} and recipe.dense.device == "cpu"
    assert settings_of(elsewhere) == settings_of(recipe)  # so a run goes on on another device
    assert told(elsewhere)["dense"]["device"] == "cpu:0"
    with pytest.raises(SettingsError, match="device='cuda:99': it cannot be used here"):
        recipe.on("cuda:99")


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
    "static": StaticNetworkSettings,
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
    with pytest.raises(SettingsError, match=rf"recipe\.toml: {path}={{'odd': 1}}: give "):
        read(tmp_path, recipe_with(path, "{odd = 1}"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("mode", "1", r"mode=1: there is no such setting; did you mean model\?"),
        ("static.epochs", "1", r"static\.budgets is missing: give 1 to 16 ascending shares above 0"),
        ("static.budgets", "[0.5, 0.50000001]", r"budgets=\(0\.5, 0\.50000001\): some are the same in six digits"),
        (
            "data.name",
            "1",
            "data.name=1: there is no such setting; allowed are data, image_size, image_column, label_c",
        ),
        ("tune.round", "1", r"tune\.round=1: there is no such setting; did you mean rounds\?"),
        ("seed", "0.5", "seed=0.5: give a whole number$"),
        ("seed", "true", "seed=True: give a whole number$"),
        ("penalties", "0.1", "penalties=0.1: give a list, each entry a number of 0 or more"),
        ("penalties", '"0.1"', "penalties='0.1': give a list, each entry a number of 0 or more"),
        ("penalties", '["0.1"]', r"penalties=\['0\.1'\]: give a list, each entry a number of 0 or more"),
        ("dense.learning_rate", '"0.1"', r"dense\.learning_rate='0\.1': give a number above 0$"),
        ("dense.learning_rate", "true", r"dense\.learning_rate=True: give a number above 0$"),
        ("dense.learning_rate", "nan", r"dense\.learning_rate=nan: give a number above 0, and finite"),
        ("dense.learning_rate", "inf", r"dense\.learning_rate=inf: give a number above 0, and finite"),
        ("adapt.epochs", "1.5", r"adapt\.epochs=1\.5: give a whole number of 0 or more"),
        ("adapt.sandwich", "1", r"adapt\.sandwich=1: give true or false"),
        ("search.budgets", "1", r"search\.budgets=1: give 1 to 16 ascending shares above 0"),
        ("policy.hidden", "[1.5]", r"policy\.hidden=\[1\.5\]: give a list, each entry a whole number of 1 or more"),
        ("policy.action", '"all"', r"policy\.action='all': give one of 'profiles', 'levels', 'ratios'"),
        ("teacher.model", '"x"', r"teacher\.weights is missing: give text"),
        ("reference.weights", '"x"', r"reference\.model is missing: give text"),
        ("reference", '"x"', r"reference='x': give a table of settings \(model, weights\), or None"),
        ("final_teachers.model", '"x"', r"final_teachers\.weights is missing: give text"),
        ("final_teachers", "[1]", r"final_teachers\[0\]=1: give a table of settings \(model, weights\)"),
        ("final_teachers", '[{model = "x"}]', r"final_teachers\[0\]\.weights is missing: give text"),
        (
            "final_teachers",
            '"x"',
            r"final_teachers='x': give a list, each entry a table of settings \(model, weights\)",
        ),
        ("refit.epochs", '"two"', r"refit\.epochs='two': give a whole number of 0 or more"),
        (
            "data.shares",
            "[0.5, 0.5]",
            r"data\.shares=\[0\.5, 0\.5\]: give three numbers above 0 that add up to 1, or None",
        ),
        ("data.shares", "[0.2, 0.3, 0.3, 0.2]", r"data\.shares=\[.*\]: give three numbers"),
        ("adapt.epochs", "-1", r"adapt\.epochs=-1: give a whole number of 0 or more"),
        (
            "adapt.bf16",
            "true\nint8 = true",
            "adapt: int8=True and bf16=True round to different numbers; give only one",
        ),
        ("tune.floor", "1", r"tune\.floor=1: give a whole number of 2 or more"),
        ("tune.floor", "257", "tune: floor=257, batch_size=256: give a floor of 2 to batch_size"),
        ("policy.max_passes", "4", r"policy\.max_passes=4: give a whole number from 1 to 3"),
        ("search.budgets", "[1, 0.5]", r"search\.budgets=\[1, 0\.5\]: give 1 to 16 ascending shares above 0"),
        ("search.budgets", "[]", r"search\.budgets=\[\]: give 1 to 16"),
        ("search.budgets", "[0, 1]", r"search\.budgets=\[0, 1\]: give 1 to 16"),
        ("search.n_images", "0", r"search\.n_images=0: give a whole number of 1 or more"),
        ("seed", "2020-01-01", "put such a value in quotes, to make it text"),
        (
            "specialise.shares",
            "[1, 1, 1, 1]",
            r"specialise\.shares=\(1\.0, .*: give one for each profile that is .* 3 at",
        ),
        ("refit.shares", "[1, 1, 1, 1]", r"refit\.shares=\(1\.0, .*: give one for each profile that is found"),
        ("specialise.shares", "[1, -1]", r"specialise\.shares=\[1, -1\]: give numbers of 0 or more, not all of them 0"),
        ("specialise.shares", "[0, 0]", r"specialise\.shares=\[0, 0\]: give numbers of 0 or more, not all"),
        ("specialise.shares", "[nan]", r"specialise\.shares=\[nan\]: give numbers of 0 or more, .*, and finite"),
        ("penalties", "[-1]", r"penalties=\[-1\]: give a list, each entry a number of 0 or more"),
        ("penalties", "[nan]", r"penalties=\[nan\]: give a list, each entry a number of 0 or more, and finite"),
        ("penalties", "[1, 1]", r"penalties=\(1\.0, 1\.0\): give each once, and none that"),
        ("penalties", "[0.3]", r"penalties=\(0\.3,\): .* equals policy\.penalty, which is 0\.3"),
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
    with pytest.raises(SettingsError, match=rf"recipe\.toml:? .*{message}"):
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
    with pytest.raises(SettingsError, match=rf"recipe\.toml: {field} is missing: give "):
        read(tmp_path, text)


def test_a_file_that_is_no_text_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RLPruneError, match=r"recipe\.toml is no text: 'utf-8' codec"):
        Recipe.read(tmp_path / "recipe.toml")
    (tmp_path / "recipe.toml").write_bytes('model = "möbel"\n[data]\ndata = "x"'.encode())
    assert Recipe.read(tmp_path / "recipe.toml").model == "möbel"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_the_recipes_of_this_project_can_be_read(path: Path) -> None:
    recipe = Recipe.read(path)
    assert asdict(recipe) == recipe.to_json() and recipe.penalties


def test_as_many_budgets_as_a_codebook_has_room_for() -> None:
    assert len(SearchSettings(tuple(n / 16 for n in range(1, 17))).budgets) == 16
    with pytest.raises(RLPruneError, match="give 1 to 16 ascending shares"):
        SearchSettings(tuple(n / 17 for n in range(1, 18)))


def test_every_mistake_has_a_line_of_its_own(tmp_path: Path) -> None:
    text = recipe_with("tune.floor", '"4"') + "\nround = 2\n[policy]\npenalty = -1\nmax_passes = true"
    with pytest.raises(SettingsError) as error:
        read(tmp_path, text)
    lines = [line.partition("recipe.toml: ")[2] for line in str(error.value).splitlines()]
    assert lines == [
        "policy.penalty=-1: give a number of 0 or more",
        "policy.max_passes=True: give a whole number from 1 to 3",
        "tune.floor='4': give a whole number of 2 or more",
        "tune.round=2: there is no such setting; did you mean rounds?",
    ]


def test_conflicts_between_settings_have_lines_of_their_own_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        read(tmp_path, recipe_with("refit_weights", '"a.pt"\npenalties = [0.3]'))
    first, second = str(error.value).splitlines()
    assert first.endswith(
        "recipe.toml: penalties=(0.3,): give each once, and none that equals policy.penalty, which is 0.3"
    )
    assert second.endswith("recipe.toml: refit_weights='a.pt': nothing begins with them; add a [refit]")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name, reason in (("none.toml", "No such file or directory"), ("", "Is a directory")):
        with pytest.raises(SettingsError, match=rf"cannot be read \({reason}\); name the TOML file of a recipe"):
            Recipe.read(tmp_path / name)


TEXT = 'model = "digits_cnn"\nseed = 1\n[data]\ndata = "pets"\n'


@pytest.mark.parametrize("content", [TEXT.encode("utf-8-sig"), TEXT.replace("\n", "\r\n").encode("utf-8-sig")])
def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "marked.toml").write_bytes(content)
    recipe = Recipe.read(tmp_path / "marked.toml")
    assert (recipe.model, recipe.seed, recipe.data.data) == ("digits_cnn", 1, "pets")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_recipe_in_another_encoding_is_refused_with_the_cure(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "other.toml").write_bytes(TEXT.replace("pets", "pet\u00e9s").encode(encoding))
    with pytest.raises(SettingsError, match=r"other\.toml is no text: .*; save it as UTF-8") as raised:
        Recipe.read(tmp_path / "other.toml")
    assert ("UTF-16" in str(raised.value)) is (encoding == "utf-16")


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    "kind", [TrainingSettings, PolicySettings, lambda seed: Recipe("x", DataOptions("y"), seed=seed)]
)
def test_seeds_are_checked_before_anything_begins(kind: Any, seed: int) -> None:
    with pytest.raises(SettingsError, match=f"seed={seed}: give a whole number from 0 to 4294967295"):
        kind(seed=seed)
    assert kind(seed=2**32 - 1).seed == 2**32 - 1
