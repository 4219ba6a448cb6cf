"""What an optimisation has trained, for whoever compares it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.intake.notes import is_cascade
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import ComputeCost
from rlprune.storage.policies import load_policy

Static = tuple[nn.Sequential, ComputeCost]
"""One small network for all images, and what it costs."""


@dataclass(frozen=True, eq=False)
class Trained:
    """Everything but the static rival, whose cost follows from a choice.

    Attributes:
        dense: the network as it is; normalised images (B, C, H, W) -> logits (B, classes), in eval mode.
        original: it made elastic; nothing of it is trained.
        elastic: the network, trained under the profiles in use, whose weights they share.
        codebook: those profiles, int64 (K, G), cheapest first, the whole network last.
        policy: which of them an image runs through, for a range of penalties.
        static: trains the static rival for a share of the dense network's multiply-adds.
        step: shows and times a step, by its name.
        timing: seconds in which rows are timed.
        affords: whether there is time for something that can be left out, and takes so many seconds.
        learnt: whether the policy is what was learnt; False for the thresholds that it began as, which are kept where
            learning is not surely ahead of them.
    """

    dense: nn.Module
    original: ElasticCNN
    elastic: ElasticCNN
    codebook: Tensor
    policy: Policy
    static: Callable[[float], Static]
    step: Callable[[str], AbstractContextManager[None]]
    timing: float
    affords: Callable[[float], bool]
    learnt: bool = True


def learnt_in(folder: Path) -> bool:
    """Whether the policy of a run is what was learnt, not the cascade that it began as."""
    return not is_cascade(load_policy(folder / "policy").metadata)
