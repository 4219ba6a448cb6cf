"""Ways to train one network for several passes, side by side: as many epochs, each with its best thresholds.

    python runs/reference/compare_designs.py runs/reference/resnet20/designs.toml runs/designs/resnet20

carries out the recipe up to the search once, then the rest of it for each design, and writes the results next to the
recipe, in designs.json. What is there already is not made again, and refused if the recipe has changed. Further
arguments name the designs that are wanted, or `static`, which comes after `shared`; else all are.

| design | what is trained |
|---|---|
| `shared` | one set of weights, norms for each profile; a profile drawn for each batch learns from all its images |
| `shared, every profile` | the same, but in the last epochs every profile learns from every image: what `specialists` |
| | would be without its policy, and at two thirds more compute in those epochs |
| `specialists` | the same, the last epochs under a policy's decisions: late passes learn from what comes that far |
| `specialists, combined` | the same, and a later pass adds to what is believed (weight 0.5 for those before) |
| `separate` | a set of weights for each profile |
| `once` | the network of `shared`, whose policy decides once, by features of the stem |
| `static` | no design, but what they have to beat: ordinary networks, each pruned for all images and trained for as |
| | many epochs as all profiles of `shared` are together; for the budgets that the recipe names |
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from arguments import steps_and_more_of

from rlprune.evaluation.controls import Point
from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.static_networks import StaticNetworks
from rlprune.pipelines.steps import Steps
from rlprune.storage.networks import load_network
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

COMMON = ("steps", "dense.safetensors", "adapted", "codebook.json", "teacher.safetensors")
"""What all designs begin with."""
SAME = {
    "specialists": ("shared, every profile", "specialised"),
    "specialists, combined": ("specialists", "specialised"),
    "once": ("shared", "specialised"),
}
"""Designs that train as an earlier one does up to a network of it, and so begin with that."""


def designs(recipe: Recipe) -> dict[str, Recipe]:
    """A recipe for each design; all train for as many epochs after the search."""
    recipe = replace(recipe, static=None)
    alone, tuned = recipe.specialise, recipe.tune
    longer = replace(alone, epochs=alone.epochs + tuned.epochs)
    fixed = replace(tuned, rounds=0)
    shared = replace(recipe, specialise=longer, tune=fixed)
    return {
        "shared": shared,
        "shared, every profile": replace(
            recipe, tune=replace(tuned, rounds=1, floor=tuned.batch_size, early_weight=1.0)
        ),
        "specialists": replace(recipe, tune=replace(tuned, rounds=1)),
        "specialists, combined": replace(
            recipe, tune=replace(tuned, rounds=1), policy=replace(recipe.policy, combine=0.5)
        ),
        "separate": replace(shared, specialise=replace(longer, separate=True)),
        "once": replace(shared, policy=replace(recipe.policy, max_passes=1, pool=2, begin="auto")),
    }


def carry_out(name: str, recipe: Recipe, base: Steps) -> dict[str, Any]:
    """Train a design in a folder of its own, and measure it."""
    out = folder_of(name, base)
    out.mkdir(parents=True, exist_ok=True)
    sources = [base.out / each for each in COMMON]
    if name in SAME:
        earlier, network = SAME[name]
        sources.append(folder_of(earlier, base) / network)
    for source in sources:
        target = out / source.name
        if source.is_dir() and not target.exists():
            shutil.copytree(source, target)
        elif source.is_file() and not target.exists():
            shutil.copy(source, target)
    Steps(recipe, out, base.recipe_dir).run()
    network = load_network(out / "tuned").network
    n_params = sum(parameter.numel() for parameter in network.parameters())
    results: dict[str, Any] = {"parameters": n_params, "rewards": _rewards(out)}
    return results | {"budgets": _read(out / "results.json")["budgets"]}


def carry_out_static(recipe: Recipe, base: Steps) -> list[Point]:
    """Train ordinary networks beside the design `shared`: share of the dense MACs and accuracy on the test images."""
    shared = replace(designs(recipe)["shared"], static=recipe.static)
    steps = Steps(shared, folder_of("shared", base), base.recipe_dir)
    steps.static()
    assert shared.static is not None
    return list(StaticNetworks(steps, shared.static, steps.teachers).points(steps.splits.test))


def folder_of(name: str, base: Steps) -> Path:
    """Where a design is trained."""
    return base.out / name.replace(", ", "-")


def _rewards(out: Path) -> Any:
    """The policy's reward before and after each round of joint training, on images that no network learns from."""
    path = out / "tuning" / "rewards.json"
    return _read(path) if path.exists() else None


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def main() -> None:
    """Train, measure, write."""
    base, wanted = steps_and_more_of(__doc__)
    base.run("search")
    path = base.recipe_dir / "designs.json"
    known = _read(path) if path.exists() else {"designs": {}}
    for name, recipe in designs(base.recipe).items():
        if not wanted or name in wanted:
            known["designs"][name] = carry_out(name, recipe, base)
            write_json(path, known | conditions())
    if base.recipe.static is not None and (not wanted or "static" in wanted):
        known["static"] = carry_out_static(base.recipe, base)
        write_json(path, known | conditions())


if __name__ == "__main__":
    main()
