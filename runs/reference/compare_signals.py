"""What is each signal worth, and what a codebook? Learn policies that see or choose different things, at equal cost.

    python runs/reference/compare_signals.py runs/reference/resnet20/recipe.toml runs/resnet20

needs the finished run of that recipe, and writes signals.json beside the recipe. Every variant is learnt at several
penalties, so that its accuracy can be read off at the mean multiply-adds of the recipe's own policy.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from rlprune.agents import train_policy
from rlprune.bundle import load_network
from rlprune.conditions import conditions
from rlprune.evaluate import predict_all
from rlprune.files import write_json
from rlprune.recipe import Recipe
from rlprune.runtime import DynamicCNN
from rlprune.steps import Steps

VARIANTS = {
    "stem features only (one pass)": {"max_passes": 1, "pool": 2},
    "beliefs, 2 passes": {"max_passes": 2, "pool": 0},
    "beliefs, 2 passes, logits combined": {"max_passes": 2, "pool": 0, "combine": True},
    "beliefs, 3 passes": {"max_passes": 3, "pool": 0},
    "beliefs, 3 passes, logits combined": {"max_passes": 3, "pool": 0, "combine": True},
    "beliefs and stem features, 3 passes, logits combined": {"max_passes": 3, "pool": 2, "combine": True},
    "all levels (MultiDiscrete), before specialising": {
        "max_passes": 3,
        "pool": 0,
        "combine": True,
        "action": "levels",
    },
}
FACTORS = (10.0, 4.0, 1.0, 0.25)
"""Of the recipe's penalty; each policy begins where the one before ended."""


def main() -> None:
    """Learn, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    recipe = Recipe.read(arguments.recipe)
    steps = Steps(recipe, arguments.run, arguments.recipe.parent)
    splits, rows = steps.splits, []
    for name, choices in VARIANTS.items():
        levels = choices.get("action") == "levels"
        elastic = load_network(arguments.run / ("adapted" if levels else "tuned")).network
        points, start = [], None
        for factor in FACTORS:
            settings = replace(recipe.policy, penalty=factor * recipe.policy.penalty, **choices)
            folder = arguments.run / "signals" / f"{name} {factor}".replace(" ", "_")
            codebook = None if levels else steps.codebook
            policy = train_policy(
                *(elastic, splits.policy, splits.validation, folder, settings),
                codebook=codebook,
                start=start,
                resume=True,
            )
            start = folder
            dynamic = DynamicCNN(elastic, policy, splits.test.mean, splits.test.std, splits.test.classes)
            predicted = predict_all(dynamic, splits.test)
            share = float(predicted.macs.double().mean() / dynamic.prices.dense.macs)
            points.append((share, float((predicted.labels == splits.test.labels).double().mean())))
            print(f"{name}, penalty {settings.penalty:g}: {points[-1][1]:.4f} at {share:.3f}", flush=True)
        rows.append({"name": name, "points": sorted(points)})
    results = json.loads((arguments.run / "results.json").read_text())
    at = 1 - results["budgets"][0]["macs_cut"]
    for row in rows:
        shares, accuracies = zip(*row["points"], strict=True)
        row["accuracy"] = float(np.interp(at, shares, accuracies)) if shares[0] <= at <= shares[-1] else None
    write_json(arguments.recipe.parent / "signals.json", {"at_macs_share": at, "rows": rows, **conditions()})


if __name__ == "__main__":
    main()
