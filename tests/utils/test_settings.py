from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any

import pytest

from rlprune.agents.joint.tuning import TuneSettings
from rlprune.agents.settings import PolicySettings
from rlprune.baselines.gate_training import GateSettings
from rlprune.baselines.static_pruning import StaticSettings
from rlprune.errors import RLPruneError, SettingsError
from rlprune.intake.options import DataOptions, ElasticOptions
from rlprune.pipelines.comparison import CompareSettings
from rlprune.pipelines.recipe import Recipe, SearchSettings, TrainedNetwork
from rlprune.training.adaptation import AdaptSettings, SpecialiseSettings
from rlprune.training.settings import TrainingSettings
from rlprune.utils.settings import read_settings

TEACHER = TrainedNetwork("resnet56", "resnet56.safetensors")
EVERY_KIND: list[Any] = [
    TrainingSettings(epochs=3, bf16=True),
    AdaptSettings(int8=True),
    SpecialiseSettings(shares=(0.5, 1.5)),
    StaticSettings(how="global"),
    GateSettings(density=0.25),
    TuneSettings(rounds=2),
    PolicySettings(penalty_range=(0.1, 1.0), hidden=(8, 4)),
    CompareSettings(methods=("static", "uniform")),
    SearchSettings(budgets=(0.5, 1.0)),
    TEACHER,
    DataOptions("pets", shares=(0.5, 0.3, 0.2)),
    ElasticOptions(keep_ratios=(0.5, 1.0)),
    Recipe("x", DataOptions("pets"), teacher=TEACHER, final_teachers=[TEACHER], penalties=(1.0, 0.1)),
]


def lines(make: Callable[[], Any]) -> list[str]:
    with pytest.raises(SettingsError) as error:
        make()
    return str(error.value).splitlines()


@pytest.mark.parametrize("settings", EVERY_KIND, ids=lambda settings: type(settings).__name__)
def test_settings_are_the_same_after_a_way_through_json_or_a_process(settings: Any) -> None:
    assert read_settings(type(settings), json.loads(json.dumps(asdict(settings)))) == settings
    assert pickle.loads(pickle.dumps(settings)) == copy.deepcopy(settings) == settings
    assert replace(settings) == settings and set(asdict(settings)) == {field.name for field in fields(settings)}
    with pytest.raises(FrozenInstanceError):
        setattr(settings, fields(settings)[0].name, None)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"epochs": True}, "epochs=True: give a whole number of 0 or more"),
        ({"epochs": "3"}, "epochs='3': give a whole number of 0 or more"),
        ({"epochs": 3.0}, "epochs=3.0: give a whole number of 0 or more"),
        ({"epochs": None}, "epochs=None: give a whole number of 0 or more"),
        ({"learning_rate": True}, "learning_rate=True: give a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: give a number above 0, and finite"),
        ({"clip_norm": float("inf")}, "clip_norm=inf: give a number above 0, and finite"),
        ({"warm_up": 1}, "warm_up=1: give a number of 0 or more, below 1"),
        ({"distillation": 1.5}, "distillation=1.5: give a number from 0 to 1"),
        ({"flip": 1}, "flip=1: give true or false"),
        ({"bf16": "yes"}, "bf16='yes': give true or false, or None"),
        ({"device": 0}, "device=0: give text"),
        ({"epoch": 3}, "epoch=3: there is no such setting; did you mean epochs?"),
        ({"early": 3}, "early=3: there is no such setting; did you mean early_size or early_share?"),
        ({"device": "x" * 200}, "device="),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(wrong: dict[str, Any], line: str) -> None:
    (found,) = lines(lambda: TrainingSettings(**wrong))
    assert found == line or (found.startswith(line) and "x" * 200 not in found.partition(": ")[0])


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: PolicySettings(hidden=(64, 0)), "hidden=(64, 0): give a list, each entry a whole number of 1 or more"),
        (lambda: PolicySettings(action="all"), "action='all': give one of 'profiles', 'levels', 'ratios'"),  # type: ignore[arg-type]
        (
            lambda: ElasticOptions((1.0, 0.5)),
            "keep_ratios=(1.0, 0.5): give two or more numbers of 0 or more, ascending",
        ),
        (lambda: DataOptions("x", shares=(0.5, 0.5, 0.5)), "shares=(0.5, 0.5, 0.5): give three numbers above 0 that"),
        (lambda: DataOptions(), "data is missing: give text"),  # type: ignore[call-arg]
        (lambda: GateSettings(density=1.0), "density=1.0: give a number above 0, below 1, or None"),
        (lambda: Recipe("x", {"data": "y"}), "data={'data': 'y'}: give a table of settings (data, image_size, "),  # type: ignore[arg-type]
        (lambda: TrainedNetwork("a", "b", "c"), "argument 3='c': there is no such setting; allowed are model, weights"),  # type: ignore[call-arg]
        (lambda: TrainedNetwork("a", model="b", weights="c"), "model is given twice: once by its place, once by its"),  # type: ignore[misc]
        (lambda: replace(TEACHER, model=1), "model=1: give text"),  # type: ignore[arg-type]
    ],
)
def test_other_kinds_of_mistakes(make: Callable[[], Any], line: str) -> None:
    (found,) = lines(make)
    assert found.startswith(line)


def test_every_wrong_setting_has_a_line_of_its_own() -> None:
    assert lines(lambda: AdaptSettings(batch_size=0, momentum=-1, nothing=1)) == [  # type: ignore[call-arg]
        "batch_size=0: give a whole number of 1 or more",
        "momentum=-1: give a number of 0 or more, below 1",
        f"nothing=1: there is no such setting; allowed are {', '.join(field.name for field in fields(AdaptSettings))}",
    ]


def test_every_conflict_has_a_line_that_names_all_its_settings() -> None:
    assert lines(lambda: SpecialiseSettings(int8=True, bf16=True, n_random=0, sandwich=False)) == [
        "int8=True and bf16=True round to different numbers; give only one",
        "n_random=0, sandwich=False: a step needs a profile; give an n_random of 1 or more, or the sandwich",
    ]


def test_lists_stand_for_tuples_and_whole_numbers_for_any() -> None:
    settings = SpecialiseSettings(learning_rate=1, shares=[1, 2])  # type: ignore[arg-type]
    assert settings == SpecialiseSettings(learning_rate=1.0, shares=(1.0, 2.0))
    assert type(settings.learning_rate) is float and type(settings.shares) is tuple


def test_the_error_is_one_of_this_library_and_a_value_error() -> None:
    assert issubclass(SettingsError, RLPruneError) and issubclass(SettingsError, ValueError)
    again = pickle.loads(pickle.dumps(SettingsError("epochs=-1: give more")))
    assert str(again) == "epochs=-1: give more"


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: TrainingSettings(epochs=10**20), "epochs=100000000000000000000: give 100000 at most"),
        (lambda: TrainingSettings(learning_rate=1e30), "learning_rate=1e+30: give 100 at most"),
        (lambda: TrainingSettings(views=1001), "views=1001: give 1000 at most"),
        (lambda: TrainingSettings(temperature=1e-300), "temperature=1e-300: give a number from 0.01 to 1000"),
        (lambda: PolicySettings(total_steps=2**31), "total_steps=2147483648: give 2147483647 at most"),
        (lambda: PolicySettings(hidden=(64, 5000)), "hidden=(64, 5000): give 4096 at most"),
        (lambda: PolicySettings(hidden=(8,) * 9), "hidden=(8, 8, 8, 8, 8, 8, 8, 8, 8): give 8 entries at most"),
        (
            lambda: PolicySettings(n_envs=65536, n_steps=128),
            "n_envs=65536, n_steps=128: give fewer, so that their product is at most 4194304: all decisions of a "
            "rollout are kept in memory",
        ),
        (lambda: SpecialiseSettings(shares=(1e-300, 0)), "shares=(1e-300, 0): give numbers of 0 or more, not all"),
    ],
)
def test_numbers_that_would_never_end_or_need_too_much_memory_are_refused(make: Callable[[], Any], line: str) -> None:
    assert lines(make)[0].startswith(line)
