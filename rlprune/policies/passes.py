"""What passes are made of: what runs them and may limit them, what they cost, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rlprune.policies.policy import Policy
from rlprune.profiles.cost import ComputeCost, Cost, mlp_cost

Run = Callable[[Tensor, int], Tensor]
"""Runs the network: indices of images int64 (n,) and a profile's index -> logits float32 (n, classes), on the CPU."""


class Limit(Protocol):
    """Asked right before images run, it says which profile they may run in place of the one that the policy chose."""

    def __call__(self, n_pass: int, profile: int, before: int, n_images: int, n_waiting: int) -> int:
        """The profile to run.

        Args:
            n_pass: number of their passes so far.
            profile: the one that was chosen, an index into the codebook.
            before: the most expensive of those that they ran in the pass before; -1 for a first pass.
            n_images: how many images chose it.
            n_waiting: how many images are still to run in this pass, these among them.

        Returns:
            An index into the codebook; after a first pass also -1, for no further one.
        """


class CostBreakdown(NamedTuple):
    """Active parameters and MACs of the parts of a prediction, int64.

    Attributes:
        stem: of the stem, which each image pays once; scalars.
        bodies: of the body under each profile of the codebook, (K,).
        decision: of one decision of the policy; scalars.
        dense: of the whole network at full width; scalars.
    """

    stem: ComputeCost
    bodies: ComputeCost
    decision: ComputeCost
    dense: ComputeCost

    @classmethod
    def of(cls, cost: Cost, policy: Policy) -> CostBreakdown:
        """The costs of a network and its policy."""
        whole = cost.of(policy.codebook)
        bodies = ComputeCost(whole.params - cost.stem.params, whole.macs - cost.stem.macs)
        network, observation = mlp_cost(policy.network), policy.observer.cost
        decision = ComputeCost(network.params + observation[0], network.macs + observation[1])
        return cls(cost.stem, bodies, decision, cost.dense)

    @property
    def spent_before(self) -> Tensor:
        """What an image has spent before its first pass, over the dense network's MACs, float32 (1,)."""
        return (self.stem.macs / self.dense.macs)[None]

    def of_passes(self, profiles: Tensor) -> ComputeCost:
        """Everything that images cost whose passes ran these profiles.

        An image that stops before its last possible pass takes one decision more than it has passes.

        Args:
            profiles: index into the codebook of every pass, int64 (B, max_passes); -1 where there was none.

        Returns:
            Active parameters summed over passes, and MACs, int64 (B,).
        """
        ran = profiles >= 0
        n_decisions = (ran.sum(1) + 1).clamp_max(profiles.shape[1])
        index = profiles.clamp_min(0)

        def total(stem: Tensor, bodies: Tensor, decision: Tensor) -> Tensor:
            return stem + (bodies[index] * ran).sum(1) + n_decisions * decision

        return ComputeCost(
            total(self.stem.params, self.bodies.params, self.decision.params),
            total(self.stem.macs, self.bodies.macs, self.decision.macs),
        )


@dataclass(frozen=True, eq=False)
class PassResult:
    """The passes of B images and their final predictions.

    Attributes:
        profiles: index into the codebook of every pass, int64 (B, max_passes); -1 where there was none.
        logits: of the final predictions, float32 (B, classes).
    """

    profiles: Tensor
    logits: Tensor


def another_pass(policy: Policy, outputs: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """How much a policy is for another pass, and which profile that would run.

    Args:
        policy: with more than one pass.
        outputs: of its network after a first pass, float32 (N, n_outputs).
        first: the profile of that pass, int64 (N,), which to choose again means to accept.

    Returns:
        The output for going on minus that for accepting, float (N,); and the index of the profile, int64 (N,).
    """
    kind = policy.actions.kind
    if kind == "profiles":
        again = first[:, None]
        others = outputs[:, :-1].scatter(1, again, -torch.inf).max(1)
        accepting = torch.maximum(outputs[:, -1], outputs.gather(1, again)[:, 0])
        return others.values - accepting, others.indices
    profiles, _ = policy.decided(outputs)
    return (outputs[:, -2] - outputs[:, -1] if kind == "levels" else -outputs[:, -1]), profiles
