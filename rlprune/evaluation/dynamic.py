"""How well a dynamic network does on images it has never seen, beside what it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits, predict_all
from rlprune.deployment.prediction import Prediction
from rlprune.errors import RLPruneError
from rlprune.evaluation.controls import Controls, Point, best_at, hull, shuffled_accuracy
from rlprune.evaluation.per_image.later_pass import decision_figures
from rlprune.evaluation.per_image.rivals import oracle_points, profile_points, tuned_cascades
from rlprune.evaluation.results import BundleResult, Conditions, ControlFigures, EvaluationResult, Frontier
from rlprune.metrics import wilson_interval
from rlprune.profiles.cost import KINDS, ComputeCost, Cost
from rlprune.profiles.latency import Latency
from rlprune.training.parallel.measuring import (
    shared_accuracies,
    shared_accuracy,
    shared_parts,
    shared_rows,
)
from rlprune.utils.finite import check_whole

_N_SHOWN = 24
"""Cascades that a frontier shows, at most."""


def evaluate(
    dynamic: DynamicCNN,
    test: ImageSet,
    selection_set: ImageSet,
    *,
    dense: Callable[[Tensor], Tensor] | float | None = None,
    n_candidates: int = 64,
    seed: int = 0,
    controls: Controls | None = None,
    logits: Tensor | None = None,
    cascades: Sequence[Point] | None = None,
    static_trained: Sequence[Point] = (),
) -> EvaluationResult:
    """Measure a dynamic network, and controls at equal mean MACs (the policy's own and every pass included).

    | control | what it is |
    |---|---|
    | `uniform` | one keep ratio for all groups and images; two neighbouring ratios are mixed to meet the cost |
    | `random` | random static profiles: the means of a few at each of several costs, neighbours mixed to meet it |
    | `best_static` | the best profile, or mixture of two, of the codebook and a search with `selection_set` |
    | `shuffled` | the policy's own decisions given to other images: the mean over all permutations |
    | `cascade` | tuned cascades of the same network and codebook, one to three steps; neighbours mixed likewise |
    | `static_trained` | networks each pruned for all images, then trained, as given; neighbours mixed likewise |
    | `oracle` | each image runs the cheapest profile that is right about it, as far as the same MACs go |

    The margins of cascades are tuned on `selection_set`; every pass and their own decisions are paid for. No decisions
    that end in a single profile of the codebook are better than the oracle. `decisions` of the result says what another
    pass is worth, and how well that can be told: `rlprune.evaluation.results.DecisionFigures`.

    Several processes (`rlprune.training.parallel`) share the images: all call this alike, and all get the figures.

    Args:
        dynamic: the network with its policy.
        test: what everything is measured on. Nothing is chosen by it.
        selection_set: what the search for static profiles judges by, and the margins of cascades are tuned on: the
            images that the policy learnt from.
        dense: the network it was made from, which takes images on the CPU, in eval mode; or the accuracy of that; if
            None, its own full width.
        n_candidates: static profiles that the search may try.
        seed: of the search and of the random profiles.
        controls: static networks that were measured before; `n_candidates` and `seed` are then theirs.
        logits: what `codebook_logits` gave for this network, codebook and `test`, if that was computed before.
        cascades: what `rlprune.evaluation.per_image.tuned_cascades` gave for this network, likewise.
        static_trained: the share of the dense MACs and the accuracy on `test` of each of those networks, as
            `rlprune.evaluation.static.static_points` measures them.
    """
    check_whole(n_candidates=n_candidates, least=1, most=100_000)
    check_whole(seed=seed, least=0, most=2**32 - 1)
    test = test.prepared_for(dynamic)
    selection_set = selection_set.prepared_for(dynamic)
    cost = Cost(dynamic.elastic)
    own, predicted = _measured(dynamic, test, dense)
    if controls is None:
        controls = Controls.measure([dynamic.elastic], dynamic.codebook, test, selection_set, n_candidates, seed)
    if logits is None:
        logits = shared_rows(partial(codebook_logits, dynamic), test, dim=1)
    if cascades is None:
        cascades = tuned_cascades(dynamic, test, selection_set, logits)
    share = float(predicted.macs.double().mean() / cost.dense.macs)
    of_codebook = (cost.of(dynamic.codebook).macs / cost.dense.macs).double(), logits.argmax(2) == test.labels
    beside = {
        "uniform": best_at(share, controls.uniform),
        "random": best_at(share, controls.random),
        "best_static": best_at(share, controls.static),
        "shuffled": (share, shuffled_accuracy(predicted, logits, test.labels, dynamic.policy.observer)),
        "cascade": best_at(share, [cascades]),
        "oracle": best_at(share, [oracle_points(*of_codebook)]),
    }
    if static_trained:
        beside["static_trained"] = best_at(share, [static_trained])
    return EvaluationResult(
        **vars(own),
        controls=ControlFigures(**{name: accuracy for name, (_, accuracy) in beside.items()}),
        controls_macs_cut=ControlFigures(**{name: 1 - macs for name, (macs, _) in beside.items()}),
        frontier=Frontier(
            uniform=tuple(hull(controls.uniform)),
            static=tuple(hull(controls.static)),
            codebook=profile_points(*of_codebook),
            cascade=_some(cascades),
            static_trained=tuple(sorted(static_trained)) or None,
        ),
        decisions=decision_figures(dynamic, test, predicted, logits),
        n_candidates=controls.n_candidates,
        seed=controls.seed,
    )


def _some(cascades: Sequence[Point]) -> tuple[Point, ...]:
    """As many cascades as are shown, the cheapest and the dearest among them."""
    n_shown = min(len(cascades), _N_SHOWN)
    return tuple(cascades[round(index)] for index in np.linspace(0, len(cascades) - 1, n_shown))


def evaluate_alone(
    dynamic: DynamicCNN, test: ImageSet, *, dense: Callable[[Tensor], Tensor] | float | None = None
) -> BundleResult:
    """Measure a dynamic network and its dense one, without controls: as quick as running both once.

    Several processes share the images, as in `evaluate`.

    Args:
        dynamic: the network with its policy.
        test: what both are measured on.
        dense: as for `evaluate`.
    """
    return _measured(dynamic, test.prepared_for(dynamic), dense)[0]


def _measured(
    dynamic: DynamicCNN, test: ImageSet, dense: Callable[[Tensor], Tensor] | float | None
) -> tuple[BundleResult, Prediction]:
    """A network's own figures, and what it predicted."""
    cost = Cost(dynamic.elastic)
    predicted = Prediction.joined(shared_parts(partial(predict_all, dynamic), test))
    n_correct = int((predicted.labels == test.labels).sum())
    share = float(predicted.macs.double().mean() / cost.dense.macs)
    runs = predicted.profiles[predicted.profiles >= 0].bincount(minlength=len(dynamic.codebook))
    found = BundleResult(
        accuracy=n_correct / len(test),
        accuracy_interval=wilson_interval(n_correct, len(test)),
        dense_accuracy=_dense_accuracy(dynamic, dense, test),
        macs_cut=1 - share,
        params_cut=1 - float(predicted.params.double().mean() / cost.dense.params),
        n_images=len(test),
        distinct_profiles=int((runs > 0).sum()),
        mean_passes=float(predicted.passes.double().mean()),
        dense="full width" if dense is None else "original",
        penalty=dynamic.penalty,
        policy_macs_share=float(dynamic.prices.decision.macs / cost.dense.macs),
        runs_per_image=tuple((runs / len(test)).tolist()),
        dense_macs=int(cost.dense.macs),
        dense_params=int(cost.dense.params),
        conditions=Conditions.now(dynamic.device),
    )
    return found, predicted


def _dense_accuracy(dynamic: DynamicCNN, dense: Callable[[Tensor], Tensor] | float | None, test: ImageSet) -> float:
    if dense is None:
        return float(shared_accuracies(dynamic.elastic, test, dynamic.elastic.full[None], "dense")[0])
    return dense if isinstance(dense, float) else shared_accuracy(dense, test)


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
        ran = predicted.profiles >= 0
        n_decisions = (predicted.passes + 1).clamp_max(predicted.profiles.shape[1])
        bodies = paid.predict_ms(Cost(dynamic.elastic), dynamic.codebook)[predicted.profiles] - paid.stem
        price = (paid.stem + n_decisions * paid.decision + (bodies * ran).sum(1)) / paid.dense
    else:
        price = ComputeCost(predicted.params, predicted.macs).of_kind(paid) / dynamic.prices.dense.of_kind(paid)
    return float((predicted.labels == data.labels).double().mean() - penalty * price.double().mean())
