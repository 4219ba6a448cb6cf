"""A small network that tells images of noise apart, and what decides on its profiles."""

from __future__ import annotations

from typing import Any

from nets import make_centred, make_data, make_levels, make_policy
from torch import Tensor

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost

NETWORK = make_centred()
DATA = make_data(60)
BOOK = sorted_codebook(make_levels(NETWORK, 6, seed=3), Cost(NETWORK))


def make(
    max_passes: int = 1,
    seed: int = 0,
    network: Any = NETWORK,
    book: Tensor = BOOK,
    combine: float = 0.0,
    pool: int = 1,
) -> DynamicCNN:
    """What decides by a policy of random weights, which sends images to many profiles."""
    policy = make_policy(network, DATA, book, max_passes=max_passes, seed=seed, combine=combine, pool=pool)
    return DynamicCNN(network, policy, DATA.mean, DATA.std, DATA.classes)
