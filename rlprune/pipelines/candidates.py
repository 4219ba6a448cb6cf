"""Points of each way of deciding: made, measured, timed, and compared at equal cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlprune.baselines.cascade import WEIGHTS, Cascade, best_cascades, cascade_policy, within
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.baselines.rivals import RivalPoint, find_rival
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.elastic.cnn import ElasticCNN
from rlprune.evaluation.timing_results import ComparisonRow, EqualCostRow
from rlprune.graph.folding import optimize_for_inference
from rlprune.metrics import wilson_interval
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost
from rlprune.utils.timing import Turns, interleaved

METHODS = ("rl once", "rl progressive", "threshold", "gates", "sparsity", "branches", "static", "uniform")
"""The ways of deciding that are known by name; a rival of somebody's own has the form package.module:callable."""
LEARNT = ("rl once", "rl progressive")
_PER_TURN = 32
"""Images that are timed together, at least."""
_MAX_BATCH = 64
"""Images that run together, at most, as in a `DynamicCNN`."""


@dataclass(frozen=True)
class Candidate:
    """One point of one method.

    Attributes:
        method: whose.
        label: at which price, density or profile.
        predict: pixels uint8 (B, C, H, W) -> labels int64 (B,), MACs int64 (B,).
        run: the same as fast as it can be computed, for timing.
        decision: what deciding costs each time, over the dense network's MACs.
        saves_time: whether what is pruned is not computed.
    """

    method: str
    label: str
    predict: Callable[[Tensor], tuple[Tensor, Tensor]]
    run: Callable[[Tensor], object]
    decision: float = 0.0
    saves_time: bool = True


class Candidates:
    """Makes the points of all methods, and measures them.

    Args:
        elastic: the adapted network; at full width it is the dense one that costs are compared with.
        test: images that points are measured on, normalised as networks take them.
    """

    def __init__(self, elastic: ElasticCNN, test: ImageSet) -> None:
        self.test = test
        self.dense = Cost(elastic).dense

    def static(self, method: str, label: str, network: ElasticCNN, profile: Tensor) -> Candidate:
        """A network sliced under one profile, int64 (G,), for all images."""
        subnet = optimize_for_inference(network.slice(profile))
        macs = Cost(network).of(profile).macs

        def run(images: Tensor) -> Tensor:
            return self._in_parts(subnet, images)

        return Candidate(method, label, lambda images: (run(images).argmax(1), macs.expand(len(images))), run)

    def dynamic(self, method: str, label: str, network: ElasticCNN, policy: Policy) -> Candidate:
        """A network under a policy's decisions."""
        dynamic = self._dynamic_cnn(network, policy)

        def predict(images: Tensor) -> tuple[Tensor, Tensor]:
            predicted = dynamic(images)
            return predicted.labels, predicted.macs

        decision = float(dynamic.prices.decision.macs / self.dense.macs)
        return Candidate(method, label, predict, dynamic, decision)

    def gated(self, method: str, label: str, network: GatedCNN) -> Candidate:
        """A network with gates of its own."""
        prepared = network.prepared()

        def predict(images: Tensor) -> tuple[Tensor, Tensor]:
            decided = network.decide(self._normalised(images))
            return decided.logits.argmax(1), decided.compute.macs

        return Candidate(
            method,
            label,
            predict,
            run=lambda images: self._in_parts(prepared, images),
            decision=float(network.gates_cost.macs / self.dense.macs),
            saves_time=method == "branches",
        )

    def own(self, method: str, network: ElasticCNN, point: RivalPoint) -> Candidate:
        """A point of a rival of somebody's own, whose policies and profiles run on a network."""
        label, how = point
        if isinstance(how, Policy):
            return self.dynamic(method, label, network, how)
        if isinstance(how, Tensor):
            return self.static(method, label, network, how)
        return Candidate(method, label, how, how)

    def thresholds(
        self, network: ElasticCNN, codebook: Tensor, selection_set: ImageSet, n_points: int
    ) -> Iterator[Candidate]:
        """Cascades for budgets in even steps, chosen on other images than those that points are measured on."""
        cheapest = self._dynamic_cnn(network, cascade_policy(network, codebook, Cascade((0,), 0.0)))
        logits = codebook_logits(cheapest, selection_set)
        best = best_cascades(network, codebook, logits, selection_set.labels, WEIGHTS)
        budgets = np.linspace(best[0].price, best[-1].price, n_points)
        for cascade in dict.fromkeys(within(best, float(budget)) for budget in budgets):
            yield self.dynamic("threshold", f"profile {cascade}", network, cascade_policy(network, codebook, cascade))

    def reward(self, candidate: Candidate, images: ImageSet, penalty: float) -> float:
        """Accuracy minus the price of the MACs, on a set of images."""
        labels, macs = self._predict_all(candidate, images)
        return float((labels == images.labels).double().mean() - penalty * macs.double().mean() / self.dense.macs)

    def measure(self, candidate: Candidate) -> ComparisonRow:
        """Accuracy and cost on the test images, as a row of the results; `ms` is still empty."""
        labels, macs = self._predict_all(candidate, self.test)
        n_correct = int((labels == self.test.labels).sum())
        return ComparisonRow(
            method=candidate.method,
            label=candidate.label,
            accuracy=n_correct / len(self.test),
            accuracy_interval=wilson_interval(n_correct, len(self.test)),
            macs_share=float(macs.double().mean() / self.dense.macs),
            decision_share=candidate.decision,
            saves_time=candidate.saves_time,
            ms={},
        )

    @torch.inference_mode()
    def time(self, candidates: Sequence[Candidate], batch: int, seconds: float) -> list[float]:
        """Median milliseconds of a batch for each candidate, in turns on the same images, in so many seconds."""
        n_batches = -(-_PER_TURN // batch)
        pixels = self.test.held()
        turns = {str(i): Turns(each.run, pixels, batch, n_batches) for i, each in enumerate(candidates)}
        return [float(np.median(ms)) / n_batches for ms in interleaved(turns, seconds).values()]

    @torch.inference_mode()
    def _predict_all(self, candidate: Candidate, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Labels and MACs of a set, int64 (N,) each."""
        labels, macs = zip(*map(candidate.predict, images.pixels(256)), strict=True)
        return torch.cat(labels), torch.cat(macs)

    def _dynamic_cnn(self, network: ElasticCNN, policy: Policy) -> DynamicCNN:
        return DynamicCNN.for_images(network, policy, self.test, memory=math.inf)

    def _normalised(self, images: Tensor) -> Tensor:
        """Pixels uint8 (B, C, H, W) as networks take them."""
        return self.test.normalise(images)

    def _in_parts(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Logits of pixels uint8 (B, C, H, W), in batches of a bounded size."""
        parts = self._normalised(images).contiguous(memory_format=torch.channels_last).split(_MAX_BATCH)
        return torch.cat([network(part) for part in parts])


def find_rivals(methods: Sequence[str]) -> list[str]:
    """Those of some ways of deciding that are rivals of somebody's own, package.module:callable.

    Raises:
        RLPruneError: one of them cannot be imported or called.
    """
    own = [name for name in dict.fromkeys(methods) if name not in METHODS]
    for name in own:
        find_rival(name)
    return own


def at_equal_macs(rows: Sequence[ComparisonRow]) -> tuple[EqualCostRow, ...]:
    """What all methods reach at the cost of every learnt point, and which of them beat it; see `Comparison.run`."""
    found = []
    methods = list(dict.fromkeys(row.method for row in rows))
    for row in (row for row in rows if row.method in LEARNT):
        reached = {method: _at(row.macs_share, method, rows) for method in methods if method not in LEARNT}
        high = row.accuracy_interval[1]
        found.append(
            EqualCostRow(
                method=row.method,
                label=row.label,
                macs_share=row.macs_share,
                accuracy=row.accuracy,
                accuracies=reached,
                beaten=tuple(method for method, other in reached.items() if other is not None and other > high),
            )
        )
    return tuple(found)


def _at(share: float, method: str, rows: Sequence[ComparisonRow]) -> float | None:
    """The accuracy of a method at a cost, between its neighbouring points; one that a cheaper one beats is left out."""
    best: list[tuple[float, float]] = []
    for point in sorted((row.macs_share, row.accuracy) for row in rows if row.method == method):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    if share < best[0][0]:
        return None
    shares, accuracies = zip(*best, strict=True)
    return float(np.interp(share, shares, accuracies))
