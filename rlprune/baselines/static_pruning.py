"""Static pruning: one small network for every image, or one whose small weights are zero."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from rlprune.data.image_set import ImageSet
from rlprune.elastic.importance import l1
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.profiles.codebook import uniform_profiles
from rlprune.profiles.cost import Cost
from rlprune.profiles.search import best_within, check_budget, check_candidates, search_profiles
from rlprune.training.parallel.measuring import shared_accuracies
from rlprune.training.settings import TrainingSettings
from rlprune.utils.finite import check_numbers
from rlprune.utils.settings import NCandidates, PositiveShare, settings_dataclass

Structure = Literal["uniform", "global", "searched"]
PruningMethod = Literal["uniform", "global", "searched", "unstructured"]


@settings_dataclass
class StaticSettings(TrainingSettings):
    """How a network is pruned, and trained on then."""

    budget: PositiveShare = 0.5
    """Share of the dense MACs that it may cost; of the weights that stay, if they are set to zero."""
    how: PruningMethod = "searched"
    """What stays: the same share of every group (uniform), the most important channels anywhere (global), the best of a
    search (searched); or, unstructured, everything with small weights at zero, which saves no time."""
    n_candidates: NCandidates = 64
    """Static profiles that the search may try."""


def static_profile(
    elastic: ElasticModule, budget: float, how: Structure, images: ImageSet, n_candidates: int = 64, seed: int = 0
) -> Tensor:
    """The profile to prune a network to, the largest within a budget.

    | how | which profile |
    |---|---|
    | `uniform` | the same level for all groups |
    | `global` | the channels of the largest L1 norm relative to their group's mean, over all groups |
    | `searched` | the most accurate one that a search finds |

    Args:
        elastic: the network.
        budget: share of the dense network's MACs that the profile may cost, in (0, 1].
        how: one of the above.
        images: images that the search measures accuracy on; never the test set.
        n_candidates: how many profiles the search tries.
        seed: of the search.

    Returns:
        int64 (G,).

    Raises:
        RLPruneError: every such profile costs more.
    """
    check_numbers(budget=budget)
    if how == "searched":
        check_budget(elastic, budget)
        measure = partial(shared_accuracies, elastic, images)
        found = search_profiles(elastic, images, n_candidates, seed, measure=measure)
        return best_within(elastic, found, [budget])[0]
    candidates, shares = _candidates(elastic, how)
    within = (shares <= budget).nonzero().flatten()
    if not len(within):
        raise RLPruneError(f"budget {budget:g} is below the cheapest {how} profile, which costs {shares.min():.3f}")
    return candidates[within[shares[within].argmax()]]


def cheapest_share(elastic: ElasticModule, how: Literal["uniform", "global"]) -> float:
    """What the cheapest profile of a kind costs, as a share of the dense network's MACs."""
    return float(_candidates(elastic, how)[1].min())


def _candidates(elastic: ElasticModule, how: Structure) -> tuple[Tensor, Tensor]:
    """The profiles (M, G) of a kind, and the shares of the dense MACs that they cost, float64 (M,)."""
    cost = Cost(elastic)
    profiles = uniform_profiles(elastic) if how == "uniform" else _global(elastic)
    return profiles, (cost.of(profiles).macs / cost.dense.macs).double()


def _global(elastic: ElasticModule) -> Tensor:
    """Profiles (M, G), one for each threshold on the channels' importance relative to their group's mean."""
    groups = [(index, group) for index, group in enumerate(elastic.groups) if not group.is_resolution]
    scores = [l1(elastic.layers_of(index), group.n_channels) for index, group in groups]
    scores = [of_group / of_group.mean().clamp_min(1e-12) for of_group in scores]
    thresholds = torch.cat(scores).unique()
    kept = torch.stack([(of_group >= thresholds[:, None]).sum(1) for of_group in scores], 1)  # (M, G)
    levels = elastic.full.expand(len(kept), -1).clone()
    levels[:, : len(scores)] = (elastic.widths.cpu()[: len(scores)] < kept[..., None]).sum(2)  # what just holds them
    profiles: Tensor = elastic.keep_levels.clamp(levels).unique(dim=0)
    return profiles


def sparsify(network: nn.Module, share: float) -> None:
    """Hold the smallest weights of a network at zero, by masks that stay until `remove_masks`.

    (Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015.)
    No time is saved: zeros are multiplied like any other number.

    Args:
        network: changed in place.
        share: of all weights of convolutions and linear layers, how many stay: those of the largest magnitude.
    """
    check_numbers(share=share, least=0, most=1)
    prune.global_unstructured(_weights(network), pruning_method=prune.L1Unstructured, amount=1 - share)


def remove_masks(network: nn.Module) -> None:
    """Turn the weights that `sparsify` masked into ordinary ones, zeros included; without masks nothing changes."""
    for layer, name in _weights(network):
        if prune.is_pruned(layer):
            prune.remove(layer, name)


def share_of_zeros(network: nn.Module) -> float:
    """The share of zeros among the weights that `sparsify` works on, in [0, 1]."""
    weights = torch.cat([getattr(layer, name).detach().flatten() for layer, name in _weights(network)])
    return float((weights == 0).double().mean())


def _weights(network: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(layer, "weight") for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def check_static(elastic: ElasticModule, settings: StaticSettings) -> None:
    """Make sure that a network can be pruned like that, before images are read for it.

    Raises:
        RLPruneError: a search cannot try so few profiles, or find one for so small a budget.
    """
    if settings.how == "searched":
        check_candidates(elastic, settings.n_candidates)
        check_budget(elastic, settings.budget)


def static_network(elastic: ElasticModule, settings: StaticSettings, images: ImageSet) -> nn.Sequential:
    """Prune a network without training it further; call `remove_masks` after the training that follows.

    Args:
        elastic: the network.
        settings: how it is pruned.
        images: images that a search measures accuracy on; never the test set.

    Returns:
        An ordinary network, images (B, C, H, W) -> logits (B, classes).

    Raises:
        RLPruneError: every profile of that kind costs more than the budget.
    """
    if settings.how != "unstructured":
        profile = static_profile(elastic, settings.budget, settings.how, images, settings.n_candidates, settings.seed)
        return elastic.slice(profile)
    network = elastic.slice(elastic.full)
    sparsify(network, settings.budget)
    return network
