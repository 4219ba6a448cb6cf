"""What another pass repairs and breaks, and how well a policy and the margin can tell the images that it repairs."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from rlprune.baselines.cascade_search import margins_of
from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.image_sets import observed_features
from rlprune.deployment.prediction import Prediction
from rlprune.evaluation.results import DecisionFigures
from rlprune.metrics import auroc
from rlprune.policies.passes import another_pass
from rlprune.training.parallel.measuring import shared_rows


@torch.inference_mode()
def decision_figures(
    dynamic: DynamicCNN, test: ImageSet, predicted: Prediction, logits: Tensor
) -> DecisionFigures | None:
    """Compare the prediction after each image's own first pass with that after the pass which would come next.

    Every image is counted, whether the policy went on there or not: the pass that would come next is the one that it
    ranks highest of those that differ from the first.

    Args:
        dynamic: the network with its policy.
        test: labelled images, normalised as the network expects.
        predicted: what the network made of them.
        logits: of every profile of the codebook for them, float32 (K, N, classes).

    Returns:
        The figures; None for a policy that may make one pass only.
    """
    policy = dynamic.policy
    if policy.observer.max_passes == 1:
        return None
    images, first = torch.arange(len(test)), predicted.profiles[:, 0]
    earlier, once = logits[first, images], torch.ones_like(first)
    spent = (dynamic.prices.stem.macs + dynamic.prices.bodies.macs[first]) / dynamic.prices.dense.macs
    at_once = test.at_once
    features = shared_rows(partial(observed_features, dynamic, batch_size=at_once), test, at_once)
    seen = policy.observer.observe(features, earlier, once, spent)
    scores, following = another_pass(policy, policy.network(seen), first)
    later = policy.observer.believe(earlier, logits[following, images], once)
    return figures_of(earlier.argmax(1) == test.labels, later.argmax(1) == test.labels, scores, -margins_of(earlier))


def figures_of(earlier: Tensor, later: Tensor, policy_scores: Tensor, margin_scores: Tensor) -> DecisionFigures:
    """The figures of images, whatever their predictions come from.

    Args:
        earlier: whether the earlier prediction is right, bool (N,).
        later: whether the later one is, bool (N,).
        policy_scores: higher where the policy is more for another pass, (N,).
        margin_scores: likewise for the margin, (N,).
    """
    repaired = ~earlier & later
    return DecisionFigures(
        breaks=_share_of(~later, earlier),
        repairs=_share_of(later, ~earlier),
        policy_auroc=auroc(policy_scores, repaired),
        margin_auroc=auroc(margin_scores, repaired),
    )


def _share_of(images: Tensor, among: Tensor) -> float | None:
    """How many of some images are of a kind; None if there are none."""
    return float(images[among].double().mean()) if bool(among.any()) else None
