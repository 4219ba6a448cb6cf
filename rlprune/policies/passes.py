"""The one loop in which a policy looks at images: pass after pass, those that chose one profile together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rlprune.policies.policy import Policy
from rlprune.profiles.cost import ComputeCost, Cost, mlp_cost

Run = Callable[[Tensor, int], Tensor]
"""Indices of images int64 (n,), and a profile of the codebook -> logits (n, classes), on the CPU."""


class CostBreakdown(NamedTuple):
    """What the pieces cost that a prediction is made of.

    Attributes:
        stem: scalars.
        bodies: of each profile of the codebook, (K,).
        decision: scalars.
        dense: the whole network at full width, scalars.
    """

    stem: ComputeCost
    bodies: ComputeCost
    decision: ComputeCost
    dense: ComputeCost

    @classmethod
    def of(cls, cost: Cost, policy: Policy) -> CostBreakdown:
        """Those of a network and its policy."""
        whole = cost.of(policy.codebook)
        bodies = ComputeCost(whole.params - cost.stem.params, whole.macs - cost.stem.macs)
        return cls(cost.stem, bodies, mlp_cost(policy.network), cost.dense)

    def of_passes(self, profiles: Tensor) -> ComputeCost:
        """Everything that images cost whose passes ran these profiles (-1: none), int64 (B, max_passes) -> (B,).

        An image that stops before its last possible pass was asked about once more than it ran.
        """
        ran, max_passes = profiles >= 0, profiles.shape[1]
        n_decisions = (ran.sum(1) + 1).clamp_max(max_passes)
        return ComputeCost(
            *(
                stem + (body[profiles.clamp_min(0)] * ran).sum(1) + n_decisions * decision
                for stem, body, decision in zip(self.stem, self.bodies, self.decision, strict=True)
            )
        )


@dataclass(frozen=True, eq=False)
class PassResult:
    """What became of B images.

    Attributes:
        profiles: index into the codebook of every pass, int64 (B, max_passes); -1 where there was none.
        logits: what is believed in the end, float32 (B, classes).
    """

    profiles: Tensor
    logits: Tensor


@torch.no_grad()
def first_profile(policy: Policy, prices: CostBreakdown) -> int | None:
    """The profile that a policy runs every image through first if it sees no features of them; None if it does."""
    if policy.observer.pool:
        return None
    alone = torch.zeros(1, dtype=torch.int64)
    nothing = torch.zeros(1, 0), torch.zeros(1, policy.observer.n_classes)
    return int(_ask(policy, *nothing, alone, (prices.stem.macs / prices.dense.macs)[None])[0])


@torch.no_grad()
def run_policy(policy: Policy, seen: Tensor, prices: CostBreakdown, run: Run, first: int | None = None) -> PassResult:
    """Let a policy decide for every image which profile to run, and whether to run another after it.

    For one image alone, `rlprune.policies.one_image` is faster.

    Args:
        policy: on the CPU, in eval mode.
        seen: the images' stem features, as `Observer.features` gives them, (B, F * pool * pool).
        prices: what the policy is told that passes cost.
        run: the network.
        first: what `first_profile` said of the policy: it is then not asked before the first pass, though paid.
    """
    observer, n_images = policy.observer, len(seen)
    logits = torch.zeros(n_images, observer.n_classes)
    profiles = torch.full((n_images, observer.max_passes), -1)
    spent = prices.stem.macs.repeat(n_images)
    waiting = torch.arange(n_images)
    for n_pass in range(observer.max_passes):
        passes = torch.full_like(waiting, n_pass)
        if n_pass == 0 and first is not None:
            choice = torch.full_like(waiting, first)
        else:
            share = spent[waiting] / prices.dense.macs
            choice, accept = _ask(policy, seen[waiting], logits[waiting], passes, share)
        if n_pass:
            new = ~accept & (choice != profiles[waiting, n_pass - 1])  # the same again would say the same again
            waiting, choice, passes = waiting[new], choice[new], passes[new]
        for profile in choice.unique().tolist():
            chose = choice == profile
            bucket = waiting[chose]
            logits[bucket] = observer.believe(logits[bucket], run(bucket, profile), passes[chose])
        profiles[waiting, n_pass] = choice
        spent[waiting] += prices.bodies.macs[choice]
        if not len(waiting):
            break
    return PassResult(profiles, logits)


def _ask(policy: Policy, seen: Tensor, logits: Tensor, passes: Tensor, spent: Tensor) -> tuple[Tensor, Tensor]:
    """What a policy decides on what is seen, believed, made and spent; the same, whatever the network computes in."""
    with torch.autocast("cpu", enabled=False):
        decided: tuple[Tensor, Tensor] = policy(policy.observer.observe(seen, logits, passes, spent))
    return decided
