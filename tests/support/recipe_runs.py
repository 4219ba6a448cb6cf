"""What tests of a recipe's steps share: the steps of a recipe in a folder, and what they made."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.steps import Steps

Stamps = dict[str, tuple[int, bytes]]


def recipe_of(root: Path) -> Recipe:
    return Recipe.read(root / "recipe.toml")


def steps_of(root: Path, out: Path | None = None, **changed: Any) -> Steps:
    return Steps(replace(recipe_of(root), **changed), out or root / "run", root)


def stamps(folder: Path) -> Stamps:
    """When every file was made, and what is in it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def copy_of(root: Path, tmp_path: Path, *without: str) -> Path:
    """The finished run, but for some files and folders."""
    shutil.copytree(root / "run", tmp_path / "run")
    for name in without:
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return tmp_path / "run"


def results_of(out: Path) -> Any:
    """All but the date, which may have changed."""
    results = json.loads((out / "results.json").read_text())
    for figures in results["budgets"]:
        del figures["date"]
    return results
