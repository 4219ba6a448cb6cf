"""The steps of a recipe by name, and what each depends on: a finished step is only kept under the same settings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from rlprune.errors import RLPruneError
from rlprune.evaluation.timing.backends import LatencySettings
from rlprune.intake.options import without_unset
from rlprune.models.weights import find_weights
from rlprune.pipelines.recipe import Recipe
from rlprune.storage.provenance import others_in
from rlprune.training.settings import TrainingSettings

StepName = Literal[
    "teacher", "dense", "adapt", "search", "specialise", "tune", "policies", "refit", "static", "evaluate"
]
FOLDERS = {**dict.fromkeys(("adapted", "specialised", "tuned", "refitted"), "network"), "bundle": "bundle"}
"""Kinds of the folders that steps make, by name."""
FILES = ("dense.safetensors", "codebook.json", "search.json", "results.json", "frontier.png")
"""The files that they make."""
_LATER = {
    "early_weight": 1.0,
    "mean_budgets": (),
    "accumulate": 1,
    "fp16": False,
    "compile": False,
    "crop_scale": None,
    "workers": None,
    "resolution": False,
}
"""Settings that 0.1.0 did not know, and their defaults."""


def steps_begun(out: Path) -> bool:
    """Whether a recipe began to be carried out in a folder: there are notes on steps, and nothing else beside them."""
    steps = out / "steps"
    return steps.is_dir() and not others_in(steps, [f"{name}.json" for name in get_args(StepName)])


def settings_of(recipe: Recipe) -> dict[StepName, dict[str, Any]]:
    """What each step depends on besides the steps before it.

    Notes in run folders hold the values alone, without their names: their order must not change.
    """
    higher = sorted(penalty for penalty in recipe.penalties if penalty > recipe.policy.penalty)
    rounds = recipe.elastic.round_to == "auto"
    timed = {} if recipe.latency == LatencySettings() else {"latency": recipe.latency}
    settings: dict[StepName, dict[str, Any]] = {
        "teacher": {
            "data": recipe.data,
            "teacher": recipe.teacher,
            "final_teachers": recipe.final_teachers or None,
            "views": views_of(recipe.specialise),
            "refit_views": views_of(recipe.refit) if recipe.refit else None,
        },
        "dense": {"model": recipe.model, "weights": recipe.weights, "dense": as_noted(recipe.dense)},
        "adapt": {"elastic": as_noted(recipe.elastic), "adapt": as_noted(recipe.adapt)} | (timed if rounds else {}),
        "search": {"search": as_noted(recipe.search)},
        "specialise": {"specialise": as_noted(recipe.specialise)},
        "tune": {"policy": recipe.policy.noted(), "tune": as_noted(recipe.tune), "penalties": higher}
        | ({} if rounds else timed),
        "policies": {"penalties": recipe.penalties},
        "refit": {"refit": recipe.refit and as_noted(recipe.refit), "refit_weights": recipe.refit_weights},
        "static": {"static": recipe.static},
        "evaluate": {"reference": recipe.reference, "static": recipe.static},
    }
    return {name: {"seed": recipe.seed, **_anywhere(each)} for name, each in settings.items()}


def _anywhere(settings: dict[str, Any]) -> dict[str, Any]:
    """A step's settings as they are on the processor: a run may go on on another device, but for rounding the same."""
    return {
        name: {**value, "device": "cpu"} if isinstance(value, dict) and "device" in value else value
        for name, value in settings.items()
    }


def check_weights(recipe: Recipe, recipe_dir: Path) -> None:
    """Make sure that all weights are there that the steps need: better missed now than in hours.

    Raises:
        ModelError: some are not.
    """
    trained = [recipe.teacher, *recipe.final_teachers, recipe.reference]
    names = [recipe.weights, *(each.weights for each in trained if each is not None), recipe.refit_weights]
    for name in names:
        if name is not None and name != "none":
            find_weights(name, recipe_dir)


def check_static(recipe: Recipe, out: Path) -> None:
    """Refuse to train static networks for results that were measured without them.

    Raises:
        RLPruneError: there are such results.
    """
    if recipe.static is not None and (out / "results.json").exists() and not (out / "static").exists():
        raise RLPruneError(
            f"{out / 'results.json'} was measured without the networks of [static]; remove that file, bundle/ and "
            "steps/evaluate.json, and all is measured again with them"
        )


def weights_noted(recipe: Recipe, out: Path, recipe_dir: Path) -> Path | None:
    """The weights that may say how pictures are prepared: the run's dense network's, or what that begins with."""
    own = out / "dense.safetensors"
    if own.exists() or recipe.weights is None:
        return own if own.exists() else None
    return Path("none") if recipe.weights == "none" else find_weights(recipe.weights, recipe_dir)


def views_of(settings: TrainingSettings) -> list[float]:
    """What cached logits depend on: the views of an image, and the way they are drawn, which is the second so far."""
    return [settings.views, settings.padding, int(settings.flip), 2, *(settings.crop_scale or ())]


def told(recipe: Recipe, round_to: int | None = None) -> dict[str, Any]:
    """The recipe as results hold it: as they did in 0.1.0, if nothing is given that it did not know.

    Args:
        recipe: the recipe.
        round_to: what the network's widths round up to, where that was measured.
    """
    settings = recipe.to_json()
    if recipe.static is None:
        del settings["static"]
    if recipe.latency == LatencySettings():
        del settings["latency"]
    names = ("elastic", "dense", "adapt", "search", "specialise", "tune", "refit")
    known = {name: as_noted(given) for name in names if (given := getattr(recipe, name)) is not None}
    known["policy"] = recipe.policy.noted()
    if recipe.elastic.round_to == "auto" and round_to is not None:
        known["elastic"]["round_to"] = round_to
    return settings | {"data": without_unset(settings["data"])} | known


def as_noted(settings: Any) -> dict[str, Any]:
    """A step's settings by name, without those that 0.1.0 did not know and that are left at their defaults."""
    return {name: value for name, value in asdict(settings).items() if (name, value) not in _LATER.items()}
