"""What images are answered, and what that costs, under any policy: from logits that each profile gave once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rlprune.baselines.cascade import WEIGHTS, Cascade, best_cascades, cascade_policy
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits, observed_features
from rlprune.elastic.cnn import ElasticCNN
from rlprune.optimization.goal import Goal
from rlprune.optimization.result import Point
from rlprune.optimization.verdict.choice import Option, best
from rlprune.optimization.verdict.figures import Answers, right_of
from rlprune.optimization.verdict.measuring import TimeOfShare
from rlprune.policies.loop import first_profile, run_policy
from rlprune.policies.passes import CostBreakdown, PassResult
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost

N_POINTS = 17
"""Penalties at which a policy for a range of them is tried."""
_MOST_CASCADES = 32


@dataclass(frozen=True, eq=False)
class DecisionPoint:
    """A policy that decides at one price.

    Attributes:
        policy: it; for one penalty.
        penalty: of the policy for a range; None for a cascade.
    """

    policy: Policy
    penalty: float | None = None


class Recorded:
    """What every profile of a network says of some images, so that any policy can be tried on them at once.

    Args:
        dynamic: the network, with any policy of its codebook that sees the same features.
        images: the images.
    """

    def __init__(self, dynamic: DynamicCNN, images: ImageSet) -> None:
        self.images = images
        self.logits = codebook_logits(dynamic, images, images.at_once)
        self._cost = Cost(dynamic.elastic)
        self.observed = observed_features(dynamic, images, images.at_once)

    def answers(self, policy: Policy) -> Answers:
        """What images are answered under a policy, and what that costs.

        Args:
            policy: for one penalty.
        """
        passes, macs = self._run(policy)
        return Answers(passes.logits.argmax(1), macs)

    def priced(self, policy: Policy, pace: TimeOfShare) -> tuple[Answers, float]:
        """The same, and the mean time of the slices that images run through, over the dense network's.

        Args:
            policy: for one penalty.
            pace: how time follows from multiply-adds.
        """
        passes, macs = self._run(policy)
        shares = self._cost.of(policy.codebook).macs.double() / int(self._cost.dense.macs)
        times = torch.tensor([pace.at(float(share)) for share in shares], dtype=torch.float64)
        taken = times[passes.profiles.clamp_min(0)] * (passes.profiles >= 0)
        return Answers(passes.logits.argmax(1), macs), float(taken.sum(1).mean())

    def _run(self, policy: Policy) -> tuple[PassResult, Tensor]:
        """What images run through under a policy, and their MACs over the dense network's, float64 (N,)."""
        prices = CostBreakdown.of(self._cost, policy)
        observed = self.observed if policy.observer.n_features else self.observed[:, :0]

        def run(bucket: Tensor, profile: int) -> Tensor:
            return self.logits[profile, bucket]

        passes = run_policy(policy, observed, prices, run, first_profile(policy, prices))
        return passes, prices.of_passes(passes.profiles).macs.double() / int(prices.dense.macs)


def learnt_points(policy: Policy) -> list[DecisionPoint]:
    """A policy for a range of penalties at some of them, evenly on the logarithmic scale; or the one that it is for."""
    penalties = policy.observer.penalties
    if penalties is None:
        return [DecisionPoint(policy)]
    places = penalties.at(torch.linspace(0, 1, N_POINTS, dtype=torch.float64)).tolist()
    return [DecisionPoint(policy.at(penalty), penalty) for penalty in places]


def cascade_points(elastic: ElasticCNN, codebook: Tensor, teaching: Recorded) -> list[DecisionPoint]:
    """Cascades of all costs, their thresholds tuned on the images that teach decisions."""
    found = best_cascades(elastic, codebook, teaching.logits, teaching.images.labels, WEIGHTS)
    return [DecisionPoint(cascade_policy(elastic, codebook, each)) for each in _spread(found)]


def _spread(cascades: Sequence[Cascade]) -> list[Cascade]:
    """Some of them, evenly by cost."""
    if len(cascades) <= _MOST_CASCADES:
        return list(cascades)
    prices = np.array([cascade.price for cascade in cascades])
    wanted = np.linspace(prices[0], prices[-1], _MOST_CASCADES)
    return [cascades[index] for index in sorted({int(np.abs(prices - each).argmin()) for each in wanted})]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A point on the validation images.

    Attributes:
        point: the policy at its price.
        option: with its figures, its time being what is expected.
        slices_ms: milliseconds of the slices that images run through, on average, without what decides.
    """

    point: DecisionPoint
    option: Option
    slices_ms: float

    def slower(self, factor: float) -> Candidate:
        """The same where everything takes so many times as long as was expected."""
        return replace(self, option=replace(self.option, ms=factor * self.option.ms))


def candidates(
    name: str,
    points: Sequence[DecisionPoint],
    recorded: Recorded,
    dense_right: Tensor,
    dense_ms: float,
    pace: TimeOfShare,
) -> list[Candidate]:
    """Points of a way of deciding, with what they answer to the validation images.

    Args:
        name: of the row.
        points: the policies.
        recorded: the validation images.
        dense_right: whether the network as it is is right, bool (N,).
        dense_ms: its milliseconds.
        pace: how time follows from multiply-adds.
    """
    found = []
    for point in points:
        answers, time = recorded.priced(point.policy, pace)
        right = right_of(recorded.images.labels, answers)
        ms = dense_ms * time
        found.append(Candidate(point, Option(name, right, dense_right, float(answers.shares.mean()), ms), ms))
    return found


def best_candidate(found: Sequence[Candidate], goal: Goal, dense_ms: float) -> Candidate:
    """The one that the rule of the choice takes."""
    option = best([each.option for each in found], goal, dense_ms)
    return next(each for each in found if each.option is option)


def curve(name: str, found: Sequence[Candidate], chosen: DecisionPoint) -> list[Point]:
    """The points as the report draws them, cheapest first."""
    ordered = sorted(found, key=lambda each: each.option.macs)
    return [
        Point(
            name=name,
            macs_share=each.option.macs,
            accuracy=float(each.option.right.double().mean()),
            chosen=each.point is chosen,
        )
        for each in ordered
    ]
