"""The choice of a codebook for what its profiles achieve one after another, not each for itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlprune.baselines.cascade import best_cascades
from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.graph.folding import optimize_for_inference
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.search import Search
from rlprune.utils.finite import check_numbers, check_whole, finite_logits
from rlprune.utils.progress import progress_bar

_MOST = 24
"""Profiles that are candidates: those of the search that are nearest to its frontier."""


def codebook_for_cascades(
    elastic: ElasticModule, found: Search, images: ImageSet, n_profiles: int, budgets: Sequence[float]
) -> Tensor:
    """Choose profiles whose tuned cascades of two steps are most accurate, on average over some budgets.

    Beginning with the whole network, the profile that helps most is added until there are enough. A first look should
    be cheap and sure where it is right; the best static profile of some cost need not be.

    Args:
        elastic: the adapted network, which was searched.
        found: the profiles that the search tried.
        images: labelled, that the network was not trained on; cascades are tuned on them.
        n_profiles: how many profiles at most, the whole network among them.
        budgets: mean shares of the dense network's MACs that an image may cost, every pass counted.

    Returns:
        int64 (K, G), cheapest first; fewer than `n_profiles` if no further one helps.

    Raises:
        RLPruneError: there is no budget, or one is below the cheapest profile found.
    """
    check_whole(n_profiles=n_profiles)
    for budget in budgets:
        check_numbers(budget=budget)
    cost = Cost(elastic)
    cheapest = float((cost.of(found.profiles).macs.double() / cost.dense.macs).min())
    if not budgets or min(budgets) < cheapest:
        raise RLPruneError(
            f"budgets are {tuple(budgets)}; give one or more of {cheapest:.3f}, the cheapest profile's, to 1"
        )
    least = found.profiles[cost.of(found.profiles).macs.argmin()]
    candidates = torch.cat([_near_the_frontier(found), least[None], elastic.full[None].cpu()]).unique(dim=0)
    candidates = sorted_codebook(candidates, cost)
    each = progress_bar(candidates, desc="cascades", unit="profile")
    logits = torch.stack([_logits(elastic, profile, images) for profile in each])

    def worth(chosen: list[int]) -> float:
        """Mean accuracy of the best cascade within each budget."""
        cascades = best_cascades(elastic, candidates[chosen], logits[chosen], images.labels, max_steps=2)
        best = [max((each.accuracy for each in cascades if each.price <= budget), default=0.0) for budget in budgets]
        return sum(best) / len(best)

    chosen = [len(candidates) - 1]
    reached = worth(chosen)
    while len(chosen) < min(n_profiles, len(candidates)):
        left = [index for index in range(len(candidates)) if index not in chosen]
        gained, added = max((worth(sorted([*chosen, index])), -index) for index in left)
        if gained <= reached:
            break
        reached, chosen = gained, sorted([*chosen, -added])
    return candidates[chosen]


def _near_the_frontier(found: Search) -> Tensor:
    """The profiles of a search whose accuracy is least below what mixtures of others reach at their price, (M, G)."""
    frontier = found.frontier()
    prices, best = found.price[frontier].numpy(), found.accuracy[frontier].numpy()

    below = torch.from_numpy(np.interp(found.price.numpy(), prices, best)) - found.accuracy
    return found.profiles[below.argsort(stable=True)[:_MOST]]


@torch.no_grad()
def _logits(elastic: ElasticModule, profile: Tensor, images: ImageSet) -> Tensor:
    """Those of a profile for all images, float32 (N, classes)."""
    network, device = optimize_for_inference(elastic.slice(profile)), elastic.widths.device
    return torch.cat([finite_logits(network(pixels.to(device))).float().cpu() for pixels, _ in images.batches(256)])
