"""From a Stable-Baselines3 agent to a policy of plain tensors."""

from __future__ import annotations

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from rlprune.agents.algorithms.actors import actor_layers
from rlprune.agents.algorithms.environments import check_environment
from rlprune.agents.algorithms.masks import greedy, is_masked, never_accepting_first, passes_entry
from rlprune.elastic.levels import MAX_PROFILES
from rlprune.envs.sweep import measure_budgets, run_sweep
from rlprune.envs.world import World
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook


def extract_policy(agent: BaseAlgorithm, world: World, codebook: Tensor | None = None) -> Policy:
    """Copy what an agent has learnt into a `Policy`, which decides as the agent does if nothing is left to chance.

    Args:
        agent: one that `rlprune.agents.algorithms.actors.actor_layers` names, with 'MlpPolicy', trained on an
            environment of this world. Wrappers around that may change rewards and keep records, not observations or
            actions.
        world: what it was trained on.
        codebook: int64 (K, G), the profiles to deploy. If None, the world's own; for a policy over levels or ratios,
            those that it uses most on the world's images.

    Raises:
        RLPruneError: the agent is of another kind, or has learnt a range of penalties over levels or ratios; or its
            environment shows other things than the world; or the copy decides otherwise than the agent.
    """
    layers, activation = actor_layers(agent)
    check_environment(agent, world)
    if is_masked(agent, world.actions):
        layers = never_accepting_first(layers, activation, world.observer)
    if codebook is None:
        codebook = world.actions.codebook if world.actions.kind == "profiles" else extract_codebook(agent, world)
    if world.observer.penalties is not None and world.actions.kind != "profiles":
        raise RLPruneError(
            f"a policy over {world.actions.kind} cannot be exported for a range of penalties: what budgets cost with "
            "the profiles that are deployed is not known; train one with action='profiles'"
        )
    decide = greedy(agent, world.actions, world.observer)
    budgets = None if world.observer.penalties is None else measure_budgets(world, decide)
    policy = Policy.from_linear(
        layers, activation, observer=world.observer, actions=world.actions, codebook=codebook, budgets=budgets
    )
    _check_decisions(agent, world, policy)
    return policy


@torch.no_grad()
def _check_decisions(agent: BaseAlgorithm, world: World, policy: Policy, n: int = 64) -> None:
    """Make sure that a policy decides as an agent does, on observations that the world could show.

    Raises:
        RLPruneError: it does not: some class of the agent's does more than its layers do.
    """
    space = world.observation_space
    seen = np.random.default_rng(0).uniform(space.low, space.high, (n, *space.shape)).astype(np.float32)
    if is_masked(agent, world.actions):
        seen[:, passes_entry(world.observer)] = np.arange(n) % world.actions.max_passes / world.actions.max_passes
    outputs = policy.network(torch.from_numpy(seen))
    chosen = torch.as_tensor(greedy(agent, world.actions, world.observer)(seen)).reshape(n, -1)
    if not _agree(outputs, chosen, world.actions):
        raise RLPruneError(
            f"a {type(agent).__name__} with {type(agent.policy).__name__} cannot be exported: it decides otherwise "
            "than its linear layers; train with 'MlpPolicy' as it is"
        )


def _agree(outputs: Tensor, chosen: Tensor, actions: Actions) -> bool:
    """Whether actions are the greedy ones of outputs, up to rounding."""
    if not actions.n_choices:
        return torch.allclose(actions.greedy(outputs), chosen.float(), atol=1e-4)
    for part, choice in zip(outputs.split(actions.n_choices, dim=1), chosen.long().T, strict=True):
        best, found = part.max(1).values, part.gather(1, choice[:, None])[:, 0]
        if bool((best - found > 1e-4 * (1 + best.abs())).any()):
            return False
    return True


def extract_codebook(agent: BaseAlgorithm, world: World, n_profiles: int = MAX_PROFILES) -> Tensor:
    """The profiles that an agent chooses most often on a world's images: int64 (K, G), K <= n_profiles."""
    levels = run_sweep(world, greedy(agent, world.actions, world.observer)).levels.flatten(0, 1)
    profiles, counts = levels[levels[:, 0] >= 0].unique(dim=0, return_counts=True)
    return sorted_codebook(profiles[torch.argsort(counts, descending=True)[:n_profiles]], world.cost)
