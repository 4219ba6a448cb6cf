"""Every image of a world once, under a fixed way of deciding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprune.envs.world import World
from rlprune.policies.penalties import PenaltyRange, monotone_budgets

N_PENALTIES = 5
"""At how many penalties of a range what is earned over it is measured."""
Decide = Callable[[NDArray], NDArray]  # type: ignore[type-arg]
"""Observations float32 (n, D) -> actions (n,) or (n, entries)."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """What became of each of N images.

    Attributes:
        rewards: summed over the episode, float32 (N,).
        correct: bool (N,).
        params: active parameters over the dense network's, summed over the episode, (N,).
        macs: MACs likewise.
        passes: int64 (N,).
        levels: of every pass, int64 (N, max_passes, G); -1 where there was none.
    """

    rewards: Tensor
    correct: Tensor
    params: Tensor
    macs: Tensor
    passes: Tensor
    levels: Tensor

    @property
    def n_distinct(self) -> int:
        """How many different profiles were run."""
        rows = self.levels.flatten(0, 1)
        return len(rows[rows[:, 0] >= 0].unique(dim=0))

    def summary(self) -> dict[str, float]:
        """Means over the images, and the number of distinct profiles."""
        return {
            "reward": self.rewards.mean().item(),
            "accuracy": self.correct.float().mean().item(),
            "active_params": self.params.mean().item(),
            "active_macs": self.macs.mean().item(),
            "passes": self.passes.float().mean().item(),
            "distinct_profiles": float(self.n_distinct),
        }


def run_sweep(world: World, decide: Decide, penalty: float | None = None) -> Sweep:
    """Let `decide` act on every image of the world, all at once; nothing is random.

    Args:
        world: images, network and rules.
        decide: what acts.
        penalty: of all episodes; if None, as `World.begin` has it.
    """
    n_images = len(world.data)
    max_passes = world.actions.max_passes
    penalties = None if penalty is None else torch.full((n_images,), penalty)
    episodes = world.begin(torch.arange(n_images), penalties)
    rewards, params, macs = torch.zeros(3, n_images)
    correct = torch.zeros(n_images, dtype=torch.bool)
    levels = torch.full((n_images, max_passes, world.network.n_groups), -1)
    running = torch.arange(n_images)
    for n_pass in range(max_passes):
        part = episodes.take(running)
        outcome = world.step(part, decide(world.observe(part)))
        episodes.replace(running, part)
        rewards[running] += outcome.rewards
        params[running] += outcome.params
        macs[running] += outcome.macs
        correct[running] = outcome.correct
        levels[running, n_pass] = outcome.levels
        running = running[~outcome.done]
        if not len(running):
            break
    return Sweep(rewards, correct, params, macs, episodes.passes, levels)


def penalties_of(world: World, n: int) -> list[float]:
    """The penalty of a world; of a range n of them, evenly on its logarithmic scale; its middle for n of 1."""
    if not isinstance(world.penalty, PenaltyRange):
        return [world.penalty]
    places = torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.tensor([0.5], dtype=torch.float64)
    return [float(penalty) for penalty in world.penalty.at(places)]


def image_rewards(world: World, decide: Decide, n: int = N_PENALTIES) -> Tensor:
    """What each image of a world earns, float64 (N,); where there is a range, on average over n of its penalties."""
    of_penalties = [run_sweep(world, decide, penalty).rewards.double() for penalty in penalties_of(world, n)]
    return torch.stack(of_penalties).mean(0)


def measure_budgets(world: World, decide: Decide, n: int = 17) -> Tensor:
    """Some of the penalties of a world's range, and what images cost at each on average.

    Args:
        world: its images, and its range.
        decide: what acts.
        n: how many penalties.

    Returns:
        float64 (n, 2): ascending penalties, and the share of the dense network's MACs that each comes to on
            the world's images.
    """
    assert world.observer.penalties is not None
    penalties = world.observer.penalties.at(torch.linspace(0, 1, n, dtype=torch.float64))
    shares = [run_sweep(world, decide, float(penalty)).macs.double().mean() for penalty in penalties]
    return monotone_budgets(torch.stack([penalties, torch.stack(shares)], 1))
