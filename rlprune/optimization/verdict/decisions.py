"""What images are answered, and what that costs, under any policy: from logits that each profile gave once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlprune.baselines.cascade import Cascade, best_cascades, cascade_policy
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.evaluation.dynamic import codebook_logits
from rlprune.policies.passes import CostBreakdown, first_profile, run_policy
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost

N_POINTS = 17
"""Penalties at which a policy for a range of them is tried."""
_MOST_CASCADES = 32


class Answers(NamedTuple):
    """What images are answered.

    Attributes:
        labels: int64 (N,).
        shares: MACs over the dense network's, float64 (N,).
    """

    labels: Tensor
    shares: Tensor


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
        self.logits = codebook_logits(dynamic, images)
        self._cost = Cost(dynamic.elastic)
        self.observed = _observed(dynamic, images)

    def answers(self, policy: Policy) -> Answers:
        """What images are answered under a policy, and what that costs.

        Args:
            policy: for one penalty.
        """
        prices = CostBreakdown.of(self._cost, policy)
        observed = self.observed if policy.observer.pool else self.observed[:, :0]

        def run(bucket: Tensor, profile: int) -> Tensor:
            return self.logits[profile, bucket]

        passes = run_policy(policy, observed, prices, run, first_profile(policy, prices))
        macs = prices.of_passes(passes.profiles).macs
        return Answers(passes.logits.argmax(1), macs.double() / int(prices.dense.macs))


@torch.inference_mode()
def _observed(dynamic: DynamicCNN, images: ImageSet) -> Tensor:
    """The features that a policy observes, float32 (N, F * pool * pool)."""
    observer = dynamic.policy.observer
    if not observer.pool:
        return torch.zeros(len(images), 0)
    parts = [observer.features(dynamic.slices.stem(pixels)) for pixels, _ in images.batches(256)]
    return torch.cat(parts)


def learnt_points(policy: Policy) -> list[DecisionPoint]:
    """A policy for a range of penalties at some of them, evenly on the logarithmic scale; or the one that it is for."""
    penalties = policy.observer.penalties
    if penalties is None:
        return [DecisionPoint(policy)]
    places = penalties.at(torch.linspace(0, 1, N_POINTS, dtype=torch.float64)).tolist()
    return [DecisionPoint(policy.at(penalty), penalty) for penalty in places]


def cascade_points(elastic: ElasticCNN, codebook: Tensor, teaching: Recorded) -> list[DecisionPoint]:
    """Cascades of all costs, their thresholds tuned on the images that teach decisions."""
    found = best_cascades(elastic, codebook, teaching.logits, teaching.images.labels)
    return [DecisionPoint(cascade_policy(elastic, codebook, each)) for each in _spread(found)]


def _spread(cascades: Sequence[Cascade]) -> list[Cascade]:
    """Some of them, evenly by cost."""
    if len(cascades) <= _MOST_CASCADES:
        return list(cascades)
    prices = np.array([cascade.price for cascade in cascades])
    wanted = np.linspace(prices[0], prices[-1], _MOST_CASCADES)
    return [cascades[index] for index in sorted({int(np.abs(prices - each).argmin()) for each in wanted})]
