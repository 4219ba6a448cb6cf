"""Programs written for 0.1.0 still find what they import."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rlprune
from rlprune.elastic.channels import UnprunableLayer
from rlprune.moved import MOVED, RENAMED, module_of
from rlprune.profiles.cost import Cost
from rlprune.storage.networks import save_network

CHANGELOG = (Path(__file__).parents[1] / "CHANGELOG.md").read_text()


def test_old_paths_give_the_same_objects_and_say_the_new_ones() -> None:
    with pytest.warns(DeprecationWarning, match=r"rlprune\.cost\.Cost is rlprune\.profiles\.cost\.Cost since 0\.2\.0"):
        from rlprune.cost import Cost as old
    assert old is Cost
    with pytest.warns(DeprecationWarning, match=r"rlprune\.bundle\.save_network is rlprune\.storage\.networks"):
        assert rlprune.bundle.save_network is save_network
    with pytest.warns(DeprecationWarning, match="UnprunableLayer"):
        assert module_of("groups").LeftAlone is UnprunableLayer
    with pytest.raises(AttributeError, match=r"'rlprune\.cost' of 0\.1\.0 is gone, and 'nothing' with it"):
        _ = module_of("cost").nothing


@pytest.mark.parametrize("old", sorted(MOVED))
def test_every_old_module_leads_to_new_ones(old: str) -> None:
    for place in MOVED[old].split():
        assert importlib.import_module(f"rlprune.{place}").__doc__
    assert importlib.util.find_spec(f"rlprune.{old}") is not None


def test_every_old_name_is_somewhere() -> None:
    places = [importlib.import_module(f"rlprune.{place}") for places in MOVED.values() for place in places.split()]
    places += [importlib.import_module("rlprune.envs"), importlib.import_module("rlprune.agents.extract")]
    places += [importlib.import_module("rlprune.envs.sweep"), importlib.import_module("rlprune.evaluation.controls")]
    for old, new in RENAMED.items():
        assert any(hasattr(place, new) for place in places), new
        assert re.search(rf"`[^|\n]*\b{old}\b", CHANGELOG), old


def test_other_modules_are_missing_as_ever_and_nothing_is_imported_early() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("rlprune.nonsense")
    code = "import sys, rlprune, rlprune.recipe; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
