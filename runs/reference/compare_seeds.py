"""Policies of three seeds for one network: how much of a result is luck of the learner.

    python runs/reference/compare_seeds.py runs/reference/resnet20/recipe.toml runs/resnet20

needs the run of that recipe up to its refit, and writes seeds.json next to the recipe. Policies are learnt as the
recipe does, from the highest penalty down and from the lowest up; that of its own penalty is measured on the test
images, with the refitted network.
"""

import shutil
from dataclasses import replace
from typing import Any

import torch
from arguments import steps_of
from offline_cnn import OfflineCNN

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.evaluation.controls import shuffled_accuracy
from rlprune.pipelines.steps import Steps
from rlprune.policies.policy import Policy
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

N_SEEDS = 3


def learnt(steps: Steps, seed: int) -> Policy:
    """The policy of a seed at the recipe's own penalty."""
    out = steps.out / "seeds" / str(seed)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(steps.out / "codebook.json", out)
    shutil.copytree(steps.out / "tuned", out / "tuned", dirs_exist_ok=True)
    own = Steps(replace(steps.recipe, seed=seed), out, steps.recipe_dir)
    own.policies()
    return load_policy(own.chosen(steps.recipe.policy.penalty) / "policy").policy


def main() -> None:
    """Learn, measure, write."""
    steps = steps_of(__doc__)
    elastic = load_network(steps.out / "refitted").network
    test = steps.splits.test
    rows = []
    logits = None
    for seed in range(steps.recipe.seed, steps.recipe.seed + N_SEEDS):
        policy = learnt(steps, seed)
        if logits is None:
            logits = codebook_logits(DynamicCNN(elastic, policy, test.mean, test.std, test.classes), test)
        dynamic = OfflineCNN(elastic, policy, test, logits)
        predicted = dynamic(torch.arange(len(test))[:, None, None, None])
        runs = predicted.profiles[predicted.profiles >= 0].bincount(minlength=len(logits))
        figures: dict[str, Any] = {
            "seed": seed,
            "accuracy": float((predicted.labels == test.labels).double().mean()),
            "macs_cut": 1 - float(predicted.macs.double().mean() / dynamic.prices.dense.macs),
            "shuffled": shuffled_accuracy(predicted, logits, test.labels, policy.observer),
            "runs_per_image": (runs / len(test)).tolist(),
        }
        rows.append(figures)
        print(figures, flush=True)
    std, mean = torch.std_mean(torch.tensor([row["accuracy"] for row in rows], dtype=torch.float64))
    found = {"rows": rows, "accuracy_mean": float(mean), "accuracy_std": float(std), **conditions()}
    write_json(steps.recipe_dir / "seeds.json", found)


if __name__ == "__main__":
    main()
