"""A recipe that was carried out, once for all tests that look at what its steps leave."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from my_recipe import RECIPE
from nets import network

from rlprune.cli.main import main
from rlprune.models.weights import save_weights

REWARDS = itertools.count()


@contextmanager
def inside(root: Path) -> Iterator[None]:
    """Work in a folder, where tuning always pays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RLPRUNE_DATA", raising=False)
        patch.delenv("RLPRUNE_WEIGHTS", raising=False)
        patch.chdir(root)
        patch.syspath_prepend(root)  # also puts sys.path back, which every main() adds to
        patch.setattr("rlprune.pipelines.steps.mean_reward", lambda *_: next(REWARDS))
        yield


@pytest.fixture(scope="session")
def carried_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, carried out in `run`: up to the search, and then all the rest."""
    pytest.importorskip("matplotlib")
    root = tmp_path_factory.mktemp("recipe")
    (root / "recipe.toml").write_text(RECIPE)
    for seed, name in ((3, "taught"), (4, "known")):
        save_weights(network("residual", seed=seed), root / f"{name}.safetensors")
    with inside(root):
        main(["run", "recipe.toml", "--out", "run", "--until", "search"])
        found = {path.name for path in (root / "run").iterdir()}
        main(["run", "recipe.toml", "--out", "run"])
    (root / "until-search.json").write_text(json.dumps(sorted(found)))
    return root


@pytest.fixture(scope="module")
def root(carried_out: Path) -> Iterator[Path]:
    """That folder, for tests that work inside it."""
    with inside(carried_out):
        yield carried_out
