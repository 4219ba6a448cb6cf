"""The worlds of a training: the one that is trained in, and the one that validates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from rlprune.agents.algorithms.learner import Learner
from rlprune.agents.run_folder import Own
from rlprune.agents.settings import PolicySettings
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.logit_cache import LogitCache
from rlprune.envs.world import World
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange
from rlprune.profiles.latency import Latency


def what_is_paid(settings: PolicySettings, latency: Latency | None) -> str | Latency:
    """What is paid for: a kind of cost, or measured time.

    Raises:
        RLPruneError: it is time, and none was measured.
    """
    if settings.cost != "latency":
        return settings.cost
    if latency is None:
        raise RLPruneError("the cost is latency, but none is given; Latency.measure(elastic) makes a table")
    return latency


def paid_noted(paid: str | Latency) -> dict[str, Any]:
    """What notes on a policy say of the times that it pays in: what they are of; nothing where it pays in others."""
    return {"latency": paid.measured_for} if isinstance(paid, Latency) else {}


def make_worlds(
    elastic: ElasticCNN,
    sets: Sequence[ImageSet],
    settings: PolicySettings,
    learner: Learner,
    codebook: Tensor | None,
    paid: str | Latency,
    logit_caches: Sequence[LogitCache] | None,
    own: Own,
) -> list[World]:
    """A world for each set of images, all under the same rules; observations are standardised on the first set.

    Args:
        elastic: the network.
        sets: of images.
        settings: of the training.
        learner: whose actor decides, which every step pays for.
        codebook: int64 (K, G); None where no profiles are chosen.
        paid: what is paid for, as `what_is_paid` gives it.
        logit_caches: one for each set; new ones if None.
        own: the run's own reward and observation.
    """
    penalties = PenaltyRange.of(settings.penalty_range) if settings.penalty_range else None
    observer = Observer.fit(
        elastic,
        sets[0],
        max_passes=settings.max_passes,
        pool=settings.pool,
        combine=settings.combine,
        penalties=penalties,
        observation=own.observation,
    )
    actions = Actions.from_network(elastic, settings.action, codebook, settings.max_passes)
    params, macs = _decision_cost(learner.sizes(observer.fixed().size, actions.n_outputs, settings))
    policy_cost = params + observer.cost[0], macs + observer.cost[1]
    return [
        World(
            elastic,
            images,
            codebook=codebook,
            observer=observer,
            logit_cache=logit_cache,
            action=settings.action,
            max_passes=settings.max_passes,
            combine=settings.combine,
            penalty=settings.penalty_range or settings.penalty,
            cost=paid,
            control_variate=settings.control_variate and own.reward is None,
            reward=own.reward,
            policy_cost=policy_cost,
        )
        for images, logit_cache in zip(sets, logit_caches or (None, None), strict=True)
    ]


def _decision_cost(sizes: Sequence[int]) -> tuple[int, int]:
    """Parameters and MACs of linear layers between these widths."""
    weights = sum(n_in * n_out for n_in, n_out in pairwise(sizes))
    return weights + sum(sizes[1:]), weights
