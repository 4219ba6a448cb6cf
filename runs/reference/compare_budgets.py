"""One policy for all budgets, next to policies trained for one penalty each; and how well a controller holds a budget.

    python runs/reference/compare_budgets.py runs/reference/resnet20/recipe.toml runs/resnet20

needs the run of that recipe up to its policies, and writes budgets.json next to the recipe. All policies decide for the
tuned network; all figures are of the test images.
"""

from dataclasses import replace
from typing import Any

import torch
from arguments import steps_of
from offline_cnn import OfflineCNN
from torch import Tensor

from rlprune.agents import train_policy
from rlprune.deployment.controller import Controller
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.deployment.prediction import Prediction
from rlprune.storage.networks import load_network
from rlprune.storage.policies import load_policy
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

STEPS = 800_000
"""Of training the one policy, four times as many as for one penalty."""
BATCH = 64
"""Images at once, in the streams."""
N_STREAM = 20_000
"""Images of a stream."""
HARD = (0.2, 0.4)
"""Share of hard images in each half of a stream."""


def share_of(dynamic: DynamicCNN, prediction: Prediction) -> float:
    """Mean MACs over the dense network's."""
    return float(prediction.macs.double().mean() / dynamic.prices.dense.macs)


def measured(dynamic: DynamicCNN, labels: Tensor, **price: float) -> dict[str, float]:
    """Accuracy and cost on all images."""
    prediction = dynamic(torch.arange(len(labels))[:, None, None, None], **price)
    accuracy = float((prediction.labels == labels).double().mean())
    return {"accuracy": accuracy, "macs_share": share_of(dynamic, prediction)}


def drifting(hard: Tensor, seed: int) -> Tensor:
    """Indices of a stream of images, whose share of hard ones (bool, of all images) doubles half-way."""
    rng = torch.Generator().manual_seed(seed)
    chance = torch.where(torch.arange(N_STREAM) < N_STREAM // 2, *map(torch.tensor, HARD))
    easy_and_hard = [
        pool[torch.randint(len(pool), (N_STREAM,), generator=rng)]
        for pool in ((~hard).nonzero().flatten(), hard.nonzero().flatten())
    ]
    return torch.where(torch.rand(N_STREAM, generator=rng) < chance, easy_and_hard[1], easy_and_hard[0])[
        :, None, None, None
    ]


def held(dynamic: DynamicCNN, stream: Tensor, target: float) -> dict[str, float]:
    """What a controller holds over a stream, and what the same budget costs without one."""
    controller = Controller(dynamic, macs=target)
    for images in stream.split(BATCH):
        controller(images)
    halves = [share_of(dynamic, dynamic(half, budget=target)) for half in stream.chunk(2)]
    return {"target": target, "held": controller.held.mean, "without": halves[0], "without_when_hard": halves[1]}


def main() -> None:
    """Learn, measure, write."""
    steps = steps_of(__doc__)
    recipe = steps.recipe
    splits = steps.splits
    elastic = load_network(steps.out / "tuned").network
    penalties = sorted((recipe.policy.penalty, *recipe.penalties))
    ends = (penalties[0], penalties[-1])
    settings = replace(recipe.policy, seed=recipe.seed, penalty_range=ends, total_steps=STEPS)
    learnt = train_policy(
        elastic,
        splits.policy,
        splits.validation,
        steps.out / "budgets",
        settings,
        codebook=steps.codebook,
        resume=True,
    )
    test = splits.test
    labels = test.labels
    plain = DynamicCNN(elastic, learnt, test.mean, test.std, test.classes)
    logits = codebook_logits(plain, test)
    one = OfflineCNN(elastic, learnt, test, logits)
    rows = []
    low, high = learnt.limits
    for penalty in penalties:
        policy = load_policy(steps.chosen(penalty) / "policy").policy
        alone = measured(OfflineCNN(elastic, policy, test, logits), labels)
        budget = min(max(alone["macs_share"], low), high)
        row: dict[str, Any] = {"penalty": penalty, "alone": alone, "one": measured(one, labels, penalty=penalty)}
        rows.append(row | {"one_at_that_budget": measured(one, labels, budget=budget)})
        print(rows[-1], flush=True)
    stream = drifting(logits[0].argmax(1) != labels, recipe.seed)
    streams = [held(one, stream, low + share * (high - low)) for share in (0.25, 0.5, 0.75)]
    print(*streams, sep="\n", flush=True)
    frontier = [measured(one, labels, budget=min(low + n / 40 * (high - low), high)) for n in range(41)]
    found = {"rows": rows, "frontier": frontier, "streams": streams, "seed": recipe.seed, **conditions()}
    write_json(steps.recipe_dir / "budgets.json", found)


if __name__ == "__main__":
    main()
