"""Profiles for codebooks: uniform, sorted by cost, drawn at random, or as a run has written them down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.utils.files import read_text
from rlprune.utils.finite import check_whole


class HasCosts(Protocol):
    """What codebooks need of the costs of a network, `rlprune.profiles.cost.Cost`."""

    def of(self, levels: Tensor) -> Any:
        """A cost for each row, of which `macs` is read."""


def uniform_codebook(elastic: ElasticModule, cost: HasCosts) -> Tensor:
    """The profiles of one level for all groups, without repetition, cheapest first, int64 (K, G)."""
    return sorted_codebook(uniform_profiles(elastic), cost)


def simple_profiles(elastic: ElasticModule) -> Tensor:
    """What anybody would try: one level for all groups; and, where it is chosen, every resolution with all channels.

    Returns:
        int64 (M, G); first those of one level, from the lowest to full keep.
    """
    return torch.cat([uniform_profiles(elastic), resolutions(elastic)[:-1]])


def uniform_profiles(elastic: ElasticModule) -> Tensor:
    """The profiles of one level for all groups, from the lowest to full keep, int64 (L, G)."""
    return torch.stack([elastic.uniform(level) for level in range(elastic.n_levels)])


def resolutions(elastic: ElasticModule) -> Tensor:
    """The whole network at every resolution that it has, the lowest first: int64 (R, G)."""
    levels = torch.arange(int(elastic.min_level[-1]) if elastic.resolution else elastic.n_levels - 1, elastic.n_levels)
    profiles = elastic.full.repeat(len(levels), 1)
    profiles[:, -1] = levels
    return profiles


def sorted_codebook(profiles: Tensor, cost: HasCosts) -> Tensor:
    """Sort profiles by MACs and remove repetitions.

    Args:
        profiles: int64 (M, G).
        cost: of the network.

    Returns:
        int64 (K, G), cheapest first, K <= M.
    """
    distinct: Tensor = profiles.unique(dim=0)
    return distinct[cost.of(distinct).macs.argsort(stable=True)]


def read_codebook(path: Path) -> Tensor:
    """The profiles that a run has written down, int64 (K, G), cheapest first.

    Raises:
        RLPruneError: the file cannot be read, or holds something else.
    """
    try:
        profiles = torch.tensor(json.loads(read_text(path)))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise RLPruneError(f"{path} is damaged ({type(error).__name__}); remove it, and it is made again") from error
    if profiles.ndim != 2 or profiles.dtype != torch.int64:
        raise RLPruneError(f"{path} holds no profiles, one list of levels for each; remove it, and it is made again")
    return profiles


def random_profiles(elastic: ElasticModule, n: int, generator: torch.Generator) -> list[Tensor]:
    """Draw profiles that cover the whole range of cost: levels scatter around a centre that is drawn first.

    Independent draws for every group would give almost only middling costs.

    Args:
        elastic: the network.
        n: number of profiles.
        generator: source of the random numbers.

    Returns:
        n profiles, int64 (G,) each.
    """
    check_whole(n=n, least=0, most=100_000)
    profiles = []
    for _ in range(n):
        centre = torch.rand((), generator=generator) * (elastic.n_levels - 1)
        levels = (centre + torch.randn(elastic.n_groups, generator=generator)).round().long()
        profiles.append(elastic.keep_levels.clamp(levels))
    return profiles
