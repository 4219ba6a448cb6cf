"""The loop in which a policy runs images pass by pass; images that chose the same profile run together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprune.policies.folded import FirstProfile, FoldedPolicy
from rlprune.policies.passes import CostBreakdown, Limit, PassResult, Run
from rlprune.policies.policy import Policy

Indices = NDArray[np.int64]


@torch.no_grad()
def first_profile(policy: Policy, prices: CostBreakdown) -> int | None:
    """The profile that a policy chooses first for every image, where it observes no features.

    Args:
        policy: on the CPU, in eval mode.
        prices: cost of a pass, as observations count it.

    Returns:
        An index into the codebook; None if the policy observes features, so that images may begin differently.
    """
    if policy.observer.n_features:
        return None
    with torch.autocast("cpu", enabled=False):
        return int(FirstProfile(policy, prices.spent_before)())


@torch.no_grad()
def run_policy(
    policy: Policy | FoldedPolicy,
    stem_features: Tensor,
    prices: CostBreakdown,
    run: Run,
    first: int | None = None,
    limit: Limit | None = None,
) -> PassResult:
    """Let a policy decide for every image which profile to run, and whether to run another after it.

    For one image alone, `rlprune.policies.one_image` is faster.

    Args:
        policy: on the CPU, in eval mode; folded, where it runs more than once.
        stem_features: as `Observer.features` returns them, float32 (B, K).
        prices: cost of a pass, as observations count it.
        run: the network.
        first: what `first_profile` returned for the policy; the policy then need not run before the first pass, though
            that decision is counted.
        limit: what may run, where that is less than the policy chooses.
    """
    policy = folded(policy, first)
    observer, n_images = policy.observer, len(stem_features)
    logits = torch.zeros(n_images, observer.n_classes)
    # NumPy, as torch takes longer to begin with few numbers.
    profiles = np.full((n_images, observer.max_passes), -1, np.int64)
    spent = np.full(n_images, int(prices.stem.macs), np.int64)
    bodies, waiting = prices.bodies.macs.numpy(), np.arange(n_images, dtype=np.int64)
    for n_pass in range(observer.max_passes):
        before = profiles[waiting, n_pass - 1]
        if n_pass == 0 and first is not None:
            choice = np.full(n_images, first, np.int64)
        else:
            share = (spent[waiting] / int(prices.dense.macs)).astype(np.float32)
            rows, passes = torch.from_numpy(waiting), torch.full((len(waiting),), n_pass)
            given = stem_features[rows], logits[rows], passes, torch.from_numpy(share), torch.from_numpy(before)
            choice = next_profiles(policy, *given).numpy()
        if n_pass:
            again = choice >= 0
            waiting, choice, before = waiting[again], choice[again], before[again]
        ran = np.full_like(choice, -1)
        for profile, chose in _permitted(limit, n_pass, choice, before, bodies):
            bucket = torch.from_numpy(waiting[chose])
            new = run(bucket, profile)
            logits[bucket] = observer.joined(logits[bucket], new) if n_pass else new
            ran[chose] = profile
        profiles[waiting, n_pass] = ran
        waiting, ran = waiting[ran >= 0], ran[ran >= 0]
        spent[waiting] += bodies[ran]
        if not len(waiting):
            break
    return PassResult(torch.from_numpy(profiles), logits)


def folded(policy: Policy | FoldedPolicy, first: int | None) -> FoldedPolicy:
    """A policy as it is run, `first` being what `first_profile` returned for it."""
    return policy if isinstance(policy, FoldedPolicy) else FoldedPolicy(policy, begun=first is not None)


@torch.no_grad()
def next_profiles(
    policy: FoldedPolicy, features: Tensor, logits: Tensor, passes: Tensor, spent: Tensor, before: Tensor
) -> Tensor:
    """Decide which profile each of some images runs next, whatever passes they come from.

    Args:
        policy: on the CPU, in eval mode.
        features: as `Observer.features` returns them, float32 (B, K).
        logits: of the predictions so far, float32 (B, classes).
        passes: how many were made so far, int64 (B,).
        spent: MACs of the passes so far over the dense network's, float (B,).
        before: the profile of the last pass, int64 (B,); ignored for images that had none.

    Returns:
        Indices into the codebook, int64 (B,); -1 for images whose prediction is accepted.
    """
    choice, accept = _decide(policy, features, logits, passes, spent)
    accepted = (passes > 0) & (accept | (choice == before))  # the same profile would predict the same
    return choice.masked_fill(accepted, -1)


def _permitted(
    limit: Limit | None, n_pass: int, choice: Indices, before: Indices, bodies: Indices
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Profiles to run, one after another, and which of the waiting images run each, bool (n,).

    Args:
        limit: what may run; everything if None.
        n_pass: number of the images' passes so far.
        choice: what the policy chose, (n,).
        before: what they ran in the pass before, (n,); -1 for a first pass.
        bodies: MACs of the body under each profile, (K,).
    """
    n_waiting = len(choice)
    for profile in np.flatnonzero(np.bincount(choice)).tolist():
        chose = choice == profile
        if limit is not None:
            n_images = int(chose.sum())
            last = max(before[chose].tolist(), key=bodies.__getitem__) if n_pass else -1
            profile = limit(n_pass, profile, last, n_images, n_waiting)
            n_waiting -= n_images
        if profile >= 0:
            yield profile, chose


def _decide(
    policy: FoldedPolicy, features: Tensor, logits: Tensor, passes: Tensor, spent: Tensor
) -> tuple[Tensor, Tensor]:
    """A policy's decisions, always in float32, whatever number format the network computes in."""
    decisions: tuple[Tensor, Tensor]
    if torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            decisions = policy(features, logits, passes, spent)
    else:  # to switch off what is off takes a tenth of a decision
        decisions = policy(features, logits, passes, spent)
    return decisions
