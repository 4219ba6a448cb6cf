"""What is each signal worth, and what a codebook? Learn policies that see or choose different things, at equal cost.

    python runs/reference/compare_signals.py runs/reference/resnet20/recipe.toml runs/resnet20

needs the run of that recipe up to its policies, and writes signals.json next to the recipe. All variants decide for the
tuned network (the one over all levels for the adapted one, if that is there); each is learnt at several penalties, so
that its accuracy can be read off at the mean MACs of the recipe's own policy.
"""

from dataclasses import replace

import numpy as np
import torch
from arguments import steps_of
from offline_cnn import OfflineCNN
from torch import Tensor

from rlprune.agents import train_policy
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.elastic.cnn import ElasticCNN
from rlprune.policies.policy import Policy
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

VARIANTS = {
    "stem features only (one pass)": {"max_passes": 1, "pool": 2},
    "beliefs, 2 passes": {"max_passes": 2, "pool": 0},
    "beliefs, 2 passes, logits combined": {"max_passes": 2, "pool": 0, "combine": 1.0},
    "beliefs, 3 passes": {"max_passes": 3, "pool": 0},
    "beliefs, 3 passes, logits combined": {"max_passes": 3, "pool": 0, "combine": 1.0},
    "beliefs and stem features, 3 passes, logits combined": {"max_passes": 3, "pool": 2, "combine": 1.0},
    "all levels (MultiDiscrete), before specialising": {
        "max_passes": 3,
        "pool": 0,
        "combine": 1.0,
        "action": "levels",
    },
}
FACTORS = (5.0, 1.0, 0.5, 0.2, 0.1)
"""Of the recipe's penalty; each policy begins where the one before ended."""


class Measure:
    """Mean MACs over the dense network's, all included, and accuracy, of any policy for a network.

    The logits of a codebook's profiles are computed once.
    """

    def __init__(self, elastic: ElasticCNN, test: ImageSet) -> None:
        self.elastic = elastic
        self.test = test
        self._known: list[tuple[Tensor, Tensor]] = []

    def __call__(self, policy: Policy) -> tuple[float, float]:
        """Measure a policy on all test images."""
        dynamic = OfflineCNN(self.elastic, policy, self.test, self._logits(policy))
        predicted = dynamic(torch.arange(len(self.test))[:, None, None, None])
        share = float(predicted.macs.double().mean() / dynamic.prices.dense.macs)
        return share, float((predicted.labels == self.test.labels).double().mean())

    def _logits(self, policy: Policy) -> Tensor:
        for codebook, logits in self._known:
            if codebook.equal(policy.codebook):
                return logits
        test = self.test
        logits = codebook_logits(DynamicCNN(self.elastic, policy, test.mean, test.std, test.classes), test)
        self._known.append((policy.codebook, logits))
        return logits


def main() -> None:
    """Learn, measure, write."""
    steps = steps_of(__doc__)
    recipe = steps.recipe
    splits = steps.splits
    rows = []
    networks = {name: steps.out / name for name in ("tuned", "adapted")}
    measures = {
        name: Measure(load_network(folder).network, splits.test) for name, folder in networks.items() if folder.exists()
    }
    own = load_policy(steps.chosen(recipe.policy.penalty) / "policy").policy
    at, accuracy = measures["tuned"](own)
    print(f"the recipe's own: {accuracy:.4f} at {at:.3f}", flush=True)
    for name, choices in VARIANTS.items():
        levels = choices.get("action") == "levels"
        measure = measures.get("adapted" if levels else "tuned")
        if measure is None:
            continue
        points = []
        start = None
        for factor in FACTORS:
            penalty = factor * recipe.policy.penalty
            settings = replace(recipe.policy, seed=recipe.seed, penalty=penalty, **choices)
            folder = steps.out / "signals" / f"{name} {factor}".replace(" ", "_")
            codebook = None if levels else steps.codebook
            policy = train_policy(
                measure.elastic,
                splits.policy,
                splits.validation,
                folder,
                settings,
                codebook=codebook,
                start=start,
                resume=True,
            )
            start = folder
            points.append(measure(policy))
            print(f"{name}, penalty {settings.penalty:g}: {points[-1][1]:.4f} at {points[-1][0]:.3f}", flush=True)
        rows.append({"name": name, "points": sorted(points)})
    for row in rows:
        shares, accuracies = zip(*row["points"], strict=True)
        row["accuracy"] = float(np.interp(at, shares, accuracies)) if shares[0] <= at <= shares[-1] else None
    own_row = {"name": "the recipe's own policy", "points": [(at, accuracy)], "accuracy": accuracy}
    found = {"at_macs_share": at, "rows": [own_row, *rows], "seed": recipe.seed, **conditions()}
    write_json(steps.recipe_dir / "signals.json", found)


if __name__ == "__main__":
    main()
