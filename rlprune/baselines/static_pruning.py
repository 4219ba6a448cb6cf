"""Pruning once and for all, for comparison: one small network for every image, or one with zeros in it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from rlprune.data.image_set import ImageSet
from rlprune.elastic.importance import l1
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.profiles.cost import Cost
from rlprune.profiles.search import best_within, search_profiles
from rlprune.training.settings import TrainingSettings
from rlprune.utils.settings import PositiveInt, PositiveShare, settings_dataclass

Structure = Literal["uniform", "global", "searched"]
PruningMethod = Literal["uniform", "global", "searched", "unstructured"]


@settings_dataclass
class StaticSettings(TrainingSettings):
    """How a network is pruned, and trained on then."""

    budget: PositiveShare = 0.5
    """Share of the dense multiply-adds that it may cost; of the weights that stay, if they are set to zero."""
    how: PruningMethod = "searched"
    """What stays: the same share of every group (uniform), the most important channels anywhere (global), the best of a
    search (searched); or, unstructured, everything with small weights at zero, which saves no time."""
    n_candidates: PositiveInt = 64
    """Static profiles that the search may try."""


def static_profile(
    elastic: ElasticModule, budget: float, how: Structure, images: ImageSet, n_candidates: int = 64, seed: int = 0
) -> Tensor:
    """The profile that is to be all that is left of a network, int64 (G,).

    | how | which |
    |---|---|
    | `uniform` | the highest level, the same for all groups |
    | `global` | the channels of the largest L1 norm, relative to their group's mean, wherever they are |
    | `searched` | the most accurate one that a search finds |

    Args:
        elastic: the network.
        budget: share of the dense multiply-adds that it may cost, in (0, 1].
        how: one of the above.
        images: what the search judges by; never the test set.
        n_candidates: profiles that it tries.
        seed: of the search.

    Raises:
        RLPruneError: no such profile is so cheap.
    """
    if how == "searched":
        return best_within(elastic, search_profiles(elastic, images, n_candidates, seed), [budget])[0]
    cost = Cost(elastic)
    candidates = _uniform(elastic) if how == "uniform" else _global(elastic)
    shares = (cost.of(candidates).macs / cost.dense.macs).double()
    within = (shares <= budget).nonzero().flatten()
    if not len(within):
        raise RLPruneError(f"budget {budget:g} is below the cheapest {how} profile, which costs {shares.min():.3f}")
    return candidates[within[shares[within].argmax()]]


def _uniform(elastic: ElasticModule) -> Tensor:
    return torch.stack([elastic.uniform(level) for level in range(elastic.n_levels)])


def _global(elastic: ElasticModule) -> Tensor:
    """Profiles (M, G) under falling thresholds for the importance of channels, all groups measured alike."""
    scores = [l1(elastic.layers_of(index), group.n_channels) for index, group in enumerate(elastic.groups)]
    scores = [of_group / of_group.mean().clamp_min(1e-12) for of_group in scores]
    thresholds = torch.cat(scores).unique()
    kept = torch.stack([(of_group >= thresholds[:, None]).sum(1) for of_group in scores], 1)  # (M, G)
    levels: Tensor = (elastic.widths.cpu() < kept[..., None]).sum(2)  # the narrowest that has room for them
    profiles: Tensor = elastic.keep_levels.clamp(levels).unique(dim=0)
    return profiles


def sparsify(network: nn.Module, share: float) -> None:
    """Hold at zero all but this share of a network's weights, those of the largest magnitude anywhere.

    (Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015.)
    It trains so from then on, until `remove_masks`. No time is saved: zeros are multiplied like anything else.
    """
    prune.global_unstructured(_weights(network), pruning_method=prune.L1Unstructured, amount=1 - share)


def remove_masks(network: nn.Module) -> None:
    """Make the zeros of `sparsify` ordinary weights, if there are any."""
    for layer, name in _weights(network):
        if prune.is_pruned(layer):
            prune.remove(layer, name)


def share_of_zeros(network: nn.Module) -> float:
    """Of the weights that `sparsify` works on, how many are 0."""
    weights = torch.cat([getattr(layer, name).detach().flatten() for layer, name in _weights(network)])
    return float((weights == 0).double().mean())


def _weights(network: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(layer, "weight") for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def static_network(elastic: ElasticModule, settings: StaticSettings, images: ImageSet) -> nn.Sequential:
    """An ordinary network, pruned but not trained on yet; `remove_masks` it after training.

    Args:
        elastic: the network.
        settings: how it is pruned.
        images: what a search judges by; never the test set.

    Raises:
        RLPruneError: nothing of that kind is so cheap.
    """
    if settings.how != "unstructured":
        search = settings.n_candidates, settings.seed
        return elastic.slice(static_profile(elastic, settings.budget, settings.how, images, *search))
    network = elastic.slice(elastic.full)
    sparsify(network, settings.budget)
    return network
