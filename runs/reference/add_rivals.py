"""Put the rivals that decide per image into results that are older than they, for bundles that were refitted.

    python runs/reference/add_rivals.py runs/reference/resnet20 cifar10

reads the bundle and the policies beside it, and adds `cascade`, `oracle` and `decisions` to results.json, as a recipe
measures them. The network has seen all images but those for testing, and is too sure of them for margins to be tuned on
them. So margins are tuned on one half of the test images and measured on the other, both ways, and the mean counts:
which favours the rival, whose margins are made for this very network. Policies that no longer decide as the file says
are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from arguments import bundle_of
from offline_cnn import OfflineCNN
from torch import Tensor

from rlprune.baselines import best_cascades
from rlprune.baselines.cascade import WEIGHTS
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.errors import RLPruneError
from rlprune.evaluation.controls import Point, best_at
from rlprune.evaluation.per_image import cascade_point, decision_figures, oracle_points
from rlprune.evaluation.results import RecipeResult
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost
from rlprune.storage.policies import load_policy
from rlprune.utils.files import write_json

_SEED = 0


def cascades_of_halves(dynamic: DynamicCNN, test: ImageSet, logits: Tensor) -> list[tuple[Tensor, list[Point]]]:
    """Two halves of the test images, and what cascades that were tuned on the other one come to on each."""
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(_SEED))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    weights = (*WEIGHTS, dynamic.policy.observer.combine)
    found = []
    for tuned, measured in (halves, halves[::-1]):
        cascades = best_cascades(dynamic.elastic, dynamic.codebook, logits[:, tuned], test.labels[tuned], weights)
        here = logits[:, measured], test.labels[measured]
        found.append((measured, [cascade_point(dynamic, cascade, *here) for cascade in cascades]))
    return found


def put_rivals(results: dict[str, Any], reference: Path, dynamic: DynamicCNN, test: ImageSet, logits: Tensor) -> None:
    """Add the rivals to every policy's figures, in place."""
    halves = cascades_of_halves(dynamic, test, logits)
    cost = Cost(dynamic.elastic)
    shares = (cost.of(dynamic.codebook).macs / cost.dense.macs).double()
    oracle = oracle_points(shares, logits.argmax(2) == test.labels)
    for figures in results["budgets"]:
        policy = policy_of(reference, dynamic, figures["penalty"])
        offline = OfflineCNN(dynamic.elastic, policy, test, logits)
        predicted = offline(torch.arange(len(test))[:, None, None, None])
        _check(figures, float((predicted.labels == test.labels).double().mean()))
        spent = predicted.macs.double() / offline.prices.dense.macs
        share = float(spent.mean())
        decisions = decision_figures(offline, test, predicted, logits)
        assert decisions is not None
        figures["controls"] |= {
            "cascade": mean(best_at(float(spent[half].mean()), [points])[1] for half, points in halves),
            "oracle": best_at(share, [oracle])[1],
        }
        figures["controls_macs_cut"] |= {"cascade": 1 - share, "oracle": 1 - best_at(share, [oracle])[0]}
        figures["decisions"] = decisions.to_json()
        print(figures["penalty"], figures["accuracy"], figures["macs_cut"], figures["controls"]["cascade"], flush=True)


def main() -> None:
    """Measure, add, write."""
    reference, dynamic, test, _ = bundle_of(__doc__)
    path = reference / "results.json"
    results = json.loads(path.read_text())
    put_rivals(results, reference, dynamic, test, codebook_logits(dynamic, test))
    write_json(path, RecipeResult.from_json(results).to_json())


def policy_of(reference: Path, dynamic: DynamicCNN, penalty: float) -> Policy:
    """The policy of a penalty: the bundle's own, or one beside it."""
    if penalty == dynamic.metadata["penalty"]:
        return dynamic.source_policy
    return load_policy(reference / "policies" / f"{penalty:g}" / "policy").policy


def _check(figures: dict[str, Any], accuracy: float) -> None:
    """Make sure that a policy decides as it did when the results were measured."""
    if abs(accuracy - figures["accuracy"]) > 2e-4:
        raise RLPruneError(
            f"penalty {figures['penalty']}: accuracy {accuracy}, where results.json says {figures['accuracy']}; it is "
            "of another bundle"
        )


if __name__ == "__main__":
    main()
