"""One policy and one search, whose work on images is done by the processes of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from rlprune.agents.settings import PolicySettings
from rlprune.cluster.connection import Cluster
from rlprune.cluster.sweeps.logits import Shared, logit_caches
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.policies.policy import Policy
from rlprune.profiles.latency import Latency
from rlprune.profiles.search import Search, search_profiles


def learn_policy(
    cluster: Cluster,
    learn: Callable[..., Policy],
    network: ElasticCNN,
    data: ImageSet,
    validation: ImageSet,
    folder: Path,
    settings: PolicySettings,
    *,
    codebook: Tensor,
    **more: Any,
) -> Policy:
    """Train a policy as `rlprune.agents.train.train_policy` does; the cluster computes the logits it learns from.

    The decisions themselves are learnt here: they take one processor, and no network runs meanwhile.

    Args:
        cluster: where.
        learn: `rlprune.agents.train.train_policy`.
        network: the network, on the CPU.
        data: images that did not train it.
        validation: further images.
        folder: of the training.
        settings: of the training.
        codebook: int64 (K, G).
        more: further arguments of `train_policy`.
    """
    sets = (data, validation)
    known = cluster.ray.get(Shared(cluster, network, sets, [len(codebook)]).logits(codebook))
    caches = logit_caches(network, sets, codebook, known)
    return learn(network, *sets, folder, settings, codebook=codebook, logit_caches=caches, **more)


def search_on(
    cluster: Cluster,
    network: ElasticCNN,
    images: ImageSet,
    n_candidates: int,
    seed: int,
    latency: Latency | None = None,
    late: Callable[[], bool] | None = None,
) -> Search:
    """Search static profiles as `rlprune.profiles.search_profiles` does, those of a generation side by side.

    Args:
        cluster: where.
        network: the network, on the CPU.
        images: that profiles are measured on.
        n_candidates: how many profiles to try.
        seed: of the random ones.
        latency: measured times, which then are the price instead of MACs.
        late: says when it has to end.
    """
    measure = Shared(cluster, network, (images,)).accuracies
    return search_profiles(network, images, n_candidates, seed, latency=latency, measure=measure, late=late)
