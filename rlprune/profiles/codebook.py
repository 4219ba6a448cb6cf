"""Profiles: uniform, random, sorted by cost, the nearest of a codebook."""

from __future__ import annotations

import torch
from torch import Tensor

from rlprune.elastic.module import ElasticModule
from rlprune.profiles.cost import Cost


def uniform_codebook(elastic: ElasticModule, cost: Cost) -> Tensor:
    """The profiles of one level for all groups, each once, cheapest first: int64 (K, G)."""
    return sorted_codebook(torch.stack([elastic.uniform(level) for level in range(elastic.n_levels)]), cost)


def sorted_codebook(profiles: Tensor, cost: Cost) -> Tensor:
    """Profiles without repetition, cheapest first by multiply-adds: int64 (K, G)."""
    distinct: Tensor = profiles.unique(dim=0)
    return distinct[cost.of(distinct).macs.argsort(stable=True)]


def random_profiles(elastic: ElasticModule, n: int, generator: torch.Generator) -> list[Tensor]:
    """Profiles that cover the whole range of cost: levels scatter around a centre that is drawn first, int64 (G,) each.

    Drawing every group alone would give hardly anything but middling costs.
    """
    profiles = []
    for _ in range(n):
        centre = torch.rand((), generator=generator) * (elastic.n_levels - 1)
        levels = (centre + torch.randn(elastic.n_groups, generator=generator)).round().long()
        profiles.append(elastic.keep_levels.clamp(levels))
    return profiles
