from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import mine
import pytest
from torch import nn

from rlprune.errors import RLPruneError
from rlprune.policies.named import described, made

NAMED = {"class": "mine:SquaredCost", "settings": {"weight": 2.0}}


class Anything:
    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def __call__(self, step: Any) -> Any: ...


class Forgetful(Anything):
    def __init__(self, weight: float = 1.0) -> None:
        self._weight = weight


@dataclass
class Holds:
    what: Any = None

    def __call__(self, step: Any) -> Any: ...


@pytest.mark.parametrize("given", [mine.SquaredCost(2.0), NAMED, json.dumps(NAMED)])
def test_an_object_a_mapping_and_a_text_of_json_are_the_same(given: Any) -> None:
    assert made("reward", given) == mine.SquaredCost(2.0)
    assert described("reward", made("reward", given)) == NAMED


@pytest.mark.parametrize("given", [mine.SquaredCost, "mine:SquaredCost", {"class": mine.SquaredCost}])
def test_a_class_is_made_with_its_defaults(given: Any) -> None:
    assert described("reward", made("reward", given)) == {"class": "mine:SquaredCost", "settings": {"weight": 1.0}}


def test_nothing_is_nothing_and_modules_and_plain_classes_have_settings() -> None:
    assert made("reward", None) is None and described("reward", None) is None
    told = described("observation", mine.Brightness(cells=2))
    assert told == {"class": "mine:Brightness", "settings": {"cells": 2}}
    assert described("observation", nn.Identity.__mro__[1]()) == {
        "class": "torch.nn.modules.module:Module",
        "settings": {},
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mine:Squared", "'mine:Squared' failed with AttributeError"),
        ("nowhere:Squared", "'nowhere:Squared' failed with ModuleNotFoundError"),
        ("mine.SquaredCost", r"'mine\.SquaredCost' has not the form package\.module:callable"),
        ("mine:torch", r"reward is 'mine:torch', which is no class; give a class, or 'module:Class'"),
        ("{no", r"reward is '\{no', which is no JSON"),
        ({"class": "mine:SquaredCost", "weight": 2}, "reward is .*; give an object, 'module:Class', or"),
        ({"settings": {}}, "reward is .*; give an object, 'module:Class', or"),
        ({"class": "mine:SquaredCost", "settings": {"wait": 2}}, "mine:SquaredCost cannot be made with .*'wait'"),
        (3, "reward is 3, which is no object that can be called; give an object"),
        (print, "reward is .*print.*, which is no object that can be called"),
        (Anything(), "takes any number of arguments; name each, so that its settings are known"),
        (Forgetful(), "does not say what 'weight' it was made with; keep the argument as an attribute"),
        (Holds(print), "the settings of the reward .*Holds are .*; plain values are needed"),
        (Holds(float("nan")), "the settings of the reward .*Holds are .*nan.*; plain values are needed"),
    ],
)
def test_what_cannot_be_made_or_told_is_refused_in_a_line(given: Any, message: str) -> None:
    with pytest.raises(RLPruneError, match=message) as caught:
        made("reward", given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
