"""How well a dynamic network does on images it has never seen, beside what it has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.adapt import random_profiles
from rlprune.conditions import conditions
from rlprune.cost import KINDS, Compute, Cost
from rlprune.data import ImageSet
from rlprune.elastic import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.latency import Latency
from rlprune.observation import Observer
from rlprune.pretrain import accuracy
from rlprune.runtime import DynamicCNN, Prediction
from rlprune.search import profile_accuracies, search
from rlprune.static import share_of_zeros

_N_DRAWS, _N_COSTS, _N_RANDOM = 2048, 8, 2
"""Random profiles drawn; costs, in even ratios, at which some are measured; how many at each."""

Points = list[tuple[float, float]]
"""Share of the dense multiply-adds and accuracy of static networks."""


@dataclass(frozen=True, eq=False)
class Rivals:
    """Static networks of one or several elastic ones, measured once: what every policy has to beat.

    Attributes:
        uniform: of each, its uniform profiles on the test images.
        random: of each, the means of a few random profiles at several costs on the test images.
        static: of each, the best profiles of a search that tries the codebook's too, on the test images.
        n_candidates: profiles that each search tried.
        seed: of the searches, and of random profiles.
    """

    uniform: tuple[Points, ...]
    random: tuple[Points, ...]
    static: tuple[Points, ...]
    n_candidates: int
    seed: int

    @classmethod
    def measure(
        cls,
        networks: Sequence[ElasticCNN],
        codebook: Tensor,
        test: ImageSet,
        choosing: ImageSet,
        n_candidates: int = 64,
        seed: int = 0,
    ) -> Rivals:
        """Search static profiles on `choosing`, and measure them on `test`.

        A network that was trained for a codebook alone is good at nothing else, so its controls are weak; give the one
        that it was before too, and the better of both counts.
        """
        uniform, random, static = [], [], []
        for elastic in networks:
            cost, found = Cost(elastic), search(elastic, choosing, n_candidates, seed, codebook)
            levels = [elastic.uniform(level) for level in range(elastic.narrowest, elastic.n_levels)]
            uniform.append(_points(elastic, test, torch.stack(levels), cost))
            random.append(_random_points(elastic, test, cost, seed))
            static.append(_points(elastic, test, found.profiles[found.frontier()], cost))
        return cls(tuple(uniform), tuple(random), tuple(static), n_candidates, seed)


def evaluate(
    dynamic: DynamicCNN,
    test: ImageSet,
    choosing: ImageSet,
    *,
    dense: Callable[[Tensor], Tensor] | float | None = None,
    n_candidates: int = 64,
    seed: int = 0,
    rivals: Rivals | None = None,
    answers: Tensor | None = None,
) -> dict[str, Any]:
    """Measure a dynamic network, and controls at equal mean multiply-adds (the policy's own and every pass included).

    | control | what it is |
    |---|---|
    | `uniform` | one keep ratio for all groups and images; two neighbouring ratios are mixed to meet the cost |
    | `random` | random static profiles: the means of a few at each of several costs, neighbours mixed to meet it |
    | `best_static` | the best profile, or mixture of two, of the codebook and a search with `choosing` |
    | `shuffled` | the policy's own decisions given to other images: the mean over all permutations |

    Args:
        dynamic: the network with its policy.
        test: what everything is measured on, and nothing is chosen by.
        choosing: what the search for static profiles judges by.
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
    test, choosing = (replace(part, mean=dynamic.mean, std=dynamic.std) for part in (test, choosing))
    predicted = predict_all(dynamic, test)
    n_correct = int((predicted.labels == test.labels).sum())
    share = float(predicted.macs.double().mean() / cost.dense.macs)
    if rivals is None:
        rivals = Rivals.measure([elastic], dynamic.codebook, test, choosing, n_candidates, seed)
    if answers is None:
        answers = codebook_logits(dynamic, test)
    right = (answers.argmax(2) == test.labels).double().mean(1)
    if dense is None:
        dense_accuracy = float(profile_accuracies(elastic, test, elastic.full[None])[0])
    else:
        dense_accuracy = dense if isinstance(dense, float) else accuracy(dense, test)
    runs = predicted.profiles[predicted.profiles >= 0].bincount(minlength=len(dynamic.codebook))
    controls = {
        "uniform": _best_at(share, rivals.uniform),
        "random": _best_at(share, rivals.random),
        "best_static": _best_at(share, rivals.static),
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
        "frontier": {"uniform": _hull(rivals.uniform), "static": _hull(rivals.static), "codebook": points},
        "dense_macs": int(cost.dense.macs),
        "dense_params": int(cost.dense.params),
        "n_candidates": rivals.n_candidates,
        "seed": rivals.seed,
        **conditions(),
    }


def evaluate_dense(model: Callable[[Tensor], Tensor], test: ImageSet) -> dict[str, Any]:
    """Measure an ordinary network: the keys of `evaluate` that it has."""
    share = accuracy(model, test)
    interval = wilson_interval(round(share * len(test)), len(test))
    nothing_cut = {"macs_cut": 0.0, "params_cut": 0.0, "distinct_profiles": 1, "mean_passes": 1.0, "controls": {}}
    nothing_cut |= {"dense": "original", "controls_macs_cut": {}}
    figures = {"accuracy": share, "accuracy_interval": interval, "dense_accuracy": share, "n_images": len(test)}
    return figures | nothing_cut | conditions()


def evaluate_static(
    network: nn.Sequential,
    test: ImageSet,
    about: Mapping[str, Any],
    dense: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """Measure a network that was pruned once and for all.

    Args:
        network: normalised images (B, C, H, W) -> logits (B, classes), in eval mode.
        test: the images.
        about: what `rlprune prune` noted: `how` it was pruned, and the `dense` network's cost.
        dense: the network that it was, if that is to stand beside it.

    Returns:
        Some keys of `evaluate`, and `how`, the share of `zeros` among the weights, and whether it `saves_time`.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(test.normalised(slice(0, 1)))
    found = evaluate_dense(network, test)
    macs, params = counter.get_total_flops() // 2, sum(p.numel() for p in network.parameters())
    before = about.get("dense", {"params": params, "macs": macs})
    found |= {"macs_cut": 1 - macs / before["macs"], "params_cut": 1 - params / before["params"]}
    found |= {"dense": "given", "dense_accuracy": None if dense is None else accuracy(dense, test)}
    how = about.get("how", "as it is")
    return found | {"how": how, "zeros": share_of_zeros(network), "saves_time": how != "unstructured"}


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
        bodies = paid.of(Cost(dynamic.elastic), dynamic.codebook)[predicted.profiles] - paid.stem
        price = (paid.stem + n_decisions * paid.decision + (bodies * ran).sum(1)) / paid.dense
    else:
        price = Compute(predicted.params, predicted.macs).of_kind(paid) / dynamic.prices.dense.of_kind(paid)
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


def shuffled_accuracy(predicted: Prediction, answers: Tensor, labels: Tensor, observer: Observer) -> float:
    """Expected accuracy when decisions go to random images: each decision's on all images, as often as it was made.

    Args:
        predicted: the decisions.
        answers: of every profile on all images, float32 (K, N, classes).
        labels: of all images, int64 (N,).
        observer: says what is believed after several passes.
    """
    decisions, counts = predicted.profiles.unique(dim=0, return_counts=True)
    n_right = torch.tensor([int((_believed(answers[of[of >= 0]], observer) == labels).sum()) for of in decisions])
    return int(n_right @ counts) / (len(labels) * len(predicted.profiles))


def _believed(logits: Tensor, observer: Observer) -> Tensor:
    """The classes believed after some passes, (passes, N, classes) -> int64 (N,)."""
    believed = logits[0]
    for n_pass, of_pass in enumerate(logits[1:], 1):
        believed = observer.believe(believed, of_pass, torch.full((len(of_pass),), n_pass))
    return believed.argmax(1)


def wilson_interval(n_correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, "Probable Inference", JASA 1927)."""
    z = 1.959964
    centre, half = n_correct + z * z / 2, z * math.sqrt(n_correct * (n - n_correct) / n + z * z / 4)
    return (centre - half) / (n + z * z), (centre + half) / (n + z * z)


def _points(elastic: ElasticCNN, data: ImageSet, profiles: Tensor, cost: Cost) -> Points:
    shares = (cost.of(profiles).macs / cost.dense.macs).tolist()
    return list(zip(shares, profile_accuracies(elastic, data, profiles, "controls").tolist(), strict=True))


def _at(share: float, points: Points) -> tuple[float, float]:
    """Cost and accuracy at a cost, two neighbours mixed; outside of what the points span, those of the nearest one."""
    shares, accuracies = zip(*sorted(points), strict=True)
    return float(np.clip(share, shares[0], shares[-1])), float(np.interp(share, shares, accuracies))


def _best_at(share: float, of_networks: Sequence[Points]) -> tuple[float, float]:
    """The same for several networks: the more accurate one's."""
    return max((_at(share, points) for points in of_networks), key=lambda point: point[1])


def _hull(of_networks: Sequence[Points]) -> Points:
    """One network's points; of several, those that nothing cheaper beats, cheapest first."""
    if len(of_networks) == 1:
        return of_networks[0]
    best: Points = []
    for point in sorted(point for points in of_networks for point in points):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def _random_points(elastic: ElasticCNN, data: ImageSet, cost: Cost, seed: int) -> Points:
    """Mean cost and accuracy of the random profiles nearest to each of several costs, in even ratios."""
    profiles = torch.stack(random_profiles(elastic, _N_DRAWS, torch.Generator().manual_seed(seed))).unique(dim=0)
    shares = (cost.of(profiles).macs / cost.dense.macs).double()
    low, high = (float(end.log10()) for end in (shares.min(), shares.max()))
    wanted = torch.logspace(low, high, _N_COSTS, dtype=torch.float64)
    nearest = (shares - wanted[:, None]).abs().argsort(dim=1, stable=True)[:, :_N_RANDOM]
    points = np.array(_points(elastic, data, profiles[nearest.flatten()], cost))
    return [(float(share), float(right)) for share, right in points.reshape(_N_COSTS, -1, 2).mean(1)]
