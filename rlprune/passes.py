"""The one loop in which a policy looks at images: pass after pass, those that chose one profile together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rlprune.cost import Cost
from rlprune.policy import Policy

Run = Callable[[Tensor, int], Tensor]
"""Indices of images int64 (n,), and a profile of the codebook -> logits (n, classes), on the CPU."""


class Macs(NamedTuple):
    """Multiply-adds, int64: of the stem (), of the body under each profile (K,), of the whole dense network ()."""

    stem: Tensor
    bodies: Tensor
    dense: Tensor

    @classmethod
    def of(cls, cost: Cost, codebook: Tensor) -> Macs:
        """Those of a network and a codebook (K, G)."""
        return cls(cost.stem.macs, cost.of(codebook).macs - cost.stem.macs, cost.dense.macs)


@dataclass(frozen=True, eq=False)
class Passes:
    """What became of B images.

    Attributes:
        profiles: index into the codebook of every pass, int64 (B, max_passes); -1 where there was none.
        logits: what is believed in the end, float32 (B, classes).
        decisions: how often the policy was asked, int64 (B,).
    """

    profiles: Tensor
    logits: Tensor
    decisions: Tensor


@torch.no_grad()
def look(policy: Policy, seen: Tensor, macs: Macs, run: Run) -> Passes:
    """Let a policy decide for every image which profile to run, and whether to run another after it.

    Args:
        policy: on the CPU, in eval mode.
        seen: the images' stem features, as `Observer.features` gives them, (B, F * pool * pool).
        macs: what the policy is told that passes cost.
        run: the network.
    """
    observer, n_images = policy.observer, len(seen)
    logits = torch.zeros(n_images, observer.n_classes)
    profiles = torch.full((n_images, observer.max_passes), -1)
    decisions = torch.zeros(n_images, dtype=torch.int64)
    spent = macs.stem.repeat(n_images)
    waiting = torch.arange(n_images)
    for n_pass in range(observer.max_passes):
        passes = torch.full_like(waiting, n_pass)
        share = spent[waiting] / macs.dense
        with torch.autocast("cpu", enabled=False):  # decisions are the same, whatever the network computes in
            choice, accept = policy(observer.observe(seen[waiting], logits[waiting], passes, share))
        decisions[waiting] += 1
        if n_pass:
            new = ~accept & (choice != profiles[waiting, n_pass - 1])  # the same again would say the same again
            waiting, choice, passes = waiting[new], choice[new], passes[new]
        for profile in choice.unique().tolist():
            chose = choice == profile
            bucket = waiting[chose]
            logits[bucket] = observer.believe(logits[bucket], run(bucket, profile), passes[chose])
        profiles[waiting, n_pass] = choice
        spent[waiting] += macs.bodies[choice]
        if not len(waiting):
            break
    return Passes(profiles, logits, decisions)
