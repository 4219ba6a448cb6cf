"""Rivals that decide per image too: tuned cascades, which learn nothing, and an oracle, which knows the labels."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from rlprune.baselines.cascade import WEIGHTS, Cascade, best_cascades, cascade_policy
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import codebook_logits
from rlprune.evaluation.controls import Point
from rlprune.policies.passes import CostBreakdown
from rlprune.profiles.cost import Cost
from rlprune.training.parallel.measuring import shared_rows


def tuned_cascades(
    dynamic: DynamicCNN,
    test: ImageSet,
    selection_set: ImageSet,
    logits: Tensor,
    learnt_with: DynamicCNN | None = None,
) -> tuple[Point, ...]:
    """The best cascades of one to three steps at all costs, measured on the test images.

    Steps, a margin for each but the last, and how logits combine (not at all, with weight 1, or as the policy does it)
    are searched on the images that the policy learnt from. Those are kept that are more accurate there than every
    cheaper one.

    Args:
        dynamic: the network with its policy, of which only `combine` counts.
        test: what cascades are measured on. Nothing is chosen by it.
        selection_set: what they are chosen by, normalised as the network expects.
        logits: of every profile of the codebook for the test images, float32 (K, N, classes).
        learnt_with: the network that the policy was learnt for, if that is another: one that has been trained on since,
            on the policy's images too, is surer of them than of new ones.

    Returns:
        Of each cascade, cheapest first there, its share of the dense MACs, every pass and decision included, and its
        accuracy.
    """
    at_once = selection_set.at_once
    ask = partial(codebook_logits, learnt_with or dynamic, batch_size=at_once)
    teaching = shared_rows(ask, selection_set, at_once, dim=1)
    weights = (*WEIGHTS, dynamic.policy.observer.combine)
    found = best_cascades(dynamic.elastic, dynamic.codebook, teaching, selection_set.labels, weights)
    return tuple(cascade_point(dynamic, cascade, logits, test.labels) for cascade in found)


def cascade_point(dynamic: DynamicCNN, cascade: Cascade, logits: Tensor, labels: Tensor) -> Point:
    """Cost and accuracy of a cascade on images.

    Args:
        dynamic: the network, whose codebook the cascade runs.
        cascade: which profiles run in turn, and when no more.
        logits: of every profile of the codebook for the images, float32 (K, N, classes).
        labels: of those, int64 (N,).

    Returns:
        Its share of the dense MACs, every pass and decision included, and its accuracy.
    """
    policy = cascade_policy(dynamic.elastic, dynamic.codebook, cascade)
    prices = CostBreakdown.of(Cost(dynamic.elastic), policy)
    passes = cascade.run(logits)
    macs = prices.of_passes(passes.profiles).macs.double()
    right = (passes.logits.argmax(1) == labels).double()
    return float(macs.mean() / prices.dense.macs), float(right.mean())


def profile_points(shares: Tensor, right: Tensor) -> tuple[Point, ...]:
    """Cost and accuracy of each profile alone; arguments as of `oracle_points`."""
    return tuple(zip(shares.tolist(), right.double().mean(1).tolist(), strict=True))


def oracle_points(shares: Tensor, right: Tensor) -> tuple[Point, ...]:
    """What is possible where labels are known: each image runs the cheapest profile that is right about it.

    An image that no profile is right about runs the cheapest. For less cost than all of this takes, the profiles up to
    one of them are there, and mixing two neighbours is the best for a cost between theirs, since the images that are
    cheapest to answer come first.

    Args:
        shares: of the dense MACs that each profile costs, float64 (K,).
        right: which profile is right about which image, bool (K, N).

    Returns:
        Mean cost and accuracy, with the cheapest profile alone, with the two cheapest, and so on.
    """
    order = shares.argsort(stable=True)
    shares, right = shares[order], right[order]
    first = right.long().argmax(0)  # of those that are right about an image
    cost, answered = shares[:1].expand(right.shape[1]).clone(), torch.zeros(right.shape[1], dtype=torch.bool)
    points = []
    for profile, share in enumerate(shares):
        now = right[profile] & (first == profile)
        cost[now] = share
        answered = answered | now
        points.append((float(cost.mean()), float(answered.double().mean())))
    return tuple(points)
