"""How well a dynamic network does on images it has never seen, beside what it has to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.prediction import Prediction
from rlprune.errors import RLPruneError
from rlprune.evaluation.controls import Controls, best_at, hull, shuffled_accuracy
from rlprune.metrics import accuracy, wilson_interval
from rlprune.profiles.cost import KINDS, ComputeCost, Cost
from rlprune.profiles.latency import Latency
from rlprune.profiles.search import profile_accuracies
from rlprune.utils.hardware import conditions


def evaluate(
    dynamic: DynamicCNN,
    test: ImageSet,
    selection_set: ImageSet,
    *,
    dense: Callable[[Tensor], Tensor] | float | None = None,
    n_candidates: int = 64,
    seed: int = 0,
    rivals: Controls | None = None,
    answers: Tensor | None = None,
) -> dict[str, Any]:
    """Measure a dynamic network, and controls at equal mean multiply-adds (the policy's own and every pass included).

    | control | what it is |
    |---|---|
    | `uniform` | one keep ratio for all groups and images; two neighbouring ratios are mixed to meet the cost |
    | `random` | random static profiles: the means of a few at each of several costs, neighbours mixed to meet it |
    | `best_static` | the best profile, or mixture of two, of the codebook and a search with `selection_set` |
    | `shuffled` | the policy's own decisions given to other images: the mean over all permutations |

    Args:
        dynamic: the network with its policy.
        test: what everything is measured on, and nothing is chosen by.
        selection_set: what the search for static profiles judges by.
        dense: the network it was made from, on the CPU and in eval mode, or the accuracy of that; its own full width
            if None.
        n_candidates: static profiles that the search may try.
        seed: of the search and of the random profiles.
        rivals: static networks measured before, which saves to do so again; then the two above are theirs.
        answers: what `codebook_logits` gave for this network and codebook, which saves to ask again.

    Returns:
        `accuracy` with its 95 % `accuracy_interval` (Wilson's), `dense_accuracy`, `macs_cut` and `params_cut` (shares
        in [0, 1]; parameters are counted once per pass), `n_images`, `distinct_profiles`, `mean_passes`,
        `policy_macs_share`, `penalty` (at which, with a policy for a range), `runs_per_image` (how often each profile
        of the codebook is run), `controls`, `controls_macs_cut` (that of `macs_cut`, except where no such network is
        that cheap, or a cheaper one is as good), `dense` (whether that was the `original` or the adapted network at
        `full width`), `frontier` (share of multiply-adds and accuracy of static networks), and what the figures were
        measured with.
    """
    elastic = dynamic.elastic
    cost = Cost(elastic)
    test, selection_set = (replace(part, mean=dynamic.mean, std=dynamic.std) for part in (test, selection_set))
    predicted = predict_all(dynamic, test)
    n_correct = int((predicted.labels == test.labels).sum())
    share = float(predicted.macs.double().mean() / cost.dense.macs)
    if rivals is None:
        rivals = Controls.measure([elastic], dynamic.codebook, test, selection_set, n_candidates, seed)
    if answers is None:
        answers = codebook_logits(dynamic, test)
    right = (answers.argmax(2) == test.labels).double().mean(1)
    if dense is None:
        dense_accuracy = float(profile_accuracies(elastic, test, elastic.full[None])[0])
    else:
        dense_accuracy = dense if isinstance(dense, float) else accuracy(dense, test)
    runs = predicted.profiles[predicted.profiles >= 0].bincount(minlength=len(dynamic.codebook))
    controls = {
        "uniform": best_at(share, rivals.uniform),
        "random": best_at(share, rivals.random),
        "best_static": best_at(share, rivals.static),
        "shuffled": (share, shuffled_accuracy(predicted, answers, test.labels, dynamic.policy.observer)),
    }
    points = list(zip((cost.of(dynamic.codebook).macs / cost.dense.macs).tolist(), right.tolist(), strict=True))
    return {
        "accuracy": n_correct / len(test),
        "accuracy_interval": wilson_interval(n_correct, len(test)),
        "dense_accuracy": dense_accuracy,
        "macs_cut": 1 - share,
        "params_cut": 1 - float(predicted.params.double().mean() / cost.dense.params),
        "n_images": len(test),
        "distinct_profiles": int((runs > 0).sum()),
        "mean_passes": float(predicted.passes.double().mean()),
        "dense": "full width" if dense is None else "original",
        "controls": {name: control for name, (_, control) in controls.items()},
        "controls_macs_cut": {name: 1 - macs for name, (macs, _) in controls.items()},
        **({} if dynamic.penalty is None else {"penalty": dynamic.penalty}),
        "policy_macs_share": float(dynamic.prices.decision.macs / cost.dense.macs),
        "runs_per_image": (runs / len(test)).tolist(),
        "frontier": {"uniform": hull(rivals.uniform), "static": hull(rivals.static), "codebook": points},
        "dense_macs": int(cost.dense.macs),
        "dense_params": int(cost.dense.params),
        "n_candidates": rivals.n_candidates,
        "seed": rivals.seed,
        **conditions(),
    }


def predict_all(dynamic: DynamicCNN, data: ImageSet, batch_size: int = 256) -> Prediction:
    """Predict a whole set, batch by batch."""
    return Prediction.joined([dynamic(images) for images in data.images.split(batch_size)])


def mean_reward(dynamic: DynamicCNN, data: ImageSet, penalty: float, paid: str | Latency = "macs") -> float:
    """What an environment without control variate pays: accuracy minus `penalty` times what was spent.

    Args:
        dynamic: the network with its policy.
        data: labelled images.
        penalty: of running the whole dense network once, in units of a right answer.
        paid: `macs` or `params`, of the policy too; or the network's latency. All over the dense network's.

    Raises:
        RLPruneError: it is something else.
    """
    if not isinstance(paid, Latency) and paid not in KINDS:
        raise RLPruneError(f"paid is {paid!r}; allowed are {', '.join(KINDS)}, and a Latency")
    predicted = predict_all(dynamic, data)
    if isinstance(paid, Latency):
        ran, n_decisions = predicted.profiles >= 0, (predicted.passes + 1).clamp_max(predicted.profiles.shape[1])
        bodies = paid.predict_ms(Cost(dynamic.elastic), dynamic.codebook)[predicted.profiles] - paid.stem
        price = (paid.stem + n_decisions * paid.decision + (bodies * ran).sum(1)) / paid.dense
    else:
        price = ComputeCost(predicted.params, predicted.macs).of_kind(paid) / dynamic.prices.dense.of_kind(paid)
    return float((predicted.labels == data.labels).double().mean() - penalty * price.double().mean())


@torch.inference_mode()
def codebook_logits(dynamic: DynamicCNN, data: ImageSet, batch_size: int = 256) -> Tensor:
    """What every profile of a codebook says of every image, float32 (K, N, classes); policies do not matter to it."""
    slices = [dynamic.slice(profile) for profile in range(len(dynamic.codebook))]
    parts = []
    for images, _ in data.batches(batch_size):
        here = images.to(dynamic.device, dynamic.dtype)
        parts.append(torch.stack([each(here).float().cpu() for each in slices]))
    return torch.cat(parts, 1)
