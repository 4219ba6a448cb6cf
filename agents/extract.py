"""From a Stable-Baselines3 agent to a policy of plain tensors."""

from __future__ import annotations

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import Tensor, nn

from rlprune.elastic.levels import MAX_PROFILES
from rlprune.envs.sweep import Decide, run_sweep
from rlprune.envs.world import World
from rlprune.errors import RLPruneError
from rlprune.policies.penalties import monotone_budgets
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook


def layer_sizes(agent: BaseAlgorithm) -> tuple[list[nn.Linear], str]:
    """The linear layers that lead from observations to actions, and the activation between them.

    Raises:
        RLPruneError: the agent's policy is not a plain actor-critic with linear layers.
    """
    policy = agent.policy
    if not isinstance(policy, ActorCriticPolicy) or not isinstance(policy.action_net, nn.Linear):
        raise RLPruneError(
            f"a {type(agent).__name__} with {type(policy).__name__} cannot be exported; "
            "train with PPO or A2C and 'MlpPolicy'"
        )
    if agent.get_vec_normalize_env() is not None or type(policy.features_extractor) is not FlattenExtractor:
        raise RLPruneError(
            "an agent that normalises observations (VecNormalize) or extracts features cannot be exported; "
            "observations come standardised, so train without"
        )
    layers = [layer for layer in policy.mlp_extractor.policy_net if isinstance(layer, nn.Linear)]
    return [*layers, policy.action_net], policy.activation_fn.__name__


def extract_policy(agent: BaseAlgorithm, world: World, codebook: Tensor | None = None) -> Policy:
    """Copy what an agent has learnt into a `Policy`.

    Args:
        agent: PPO or A2C with 'MlpPolicy', trained on an environment of this world.
        world: what it was trained on.
        codebook: int64 (K, G), the profiles to deploy. If None, the world's own; for a policy over levels or ratios,
            those that it uses most on the world's images.

    Raises:
        RLPruneError: the agent is of another kind, or has learnt a range of penalties over levels or ratios.
    """
    layers, activation = layer_sizes(agent)
    if codebook is None:
        codebook = world.actions.codebook if world.actions.kind == "profiles" else extract_codebook(agent, world)
    assert codebook is not None
    sizes = [layers[0].in_features, *(int(layer.out_features) for layer in layers)]  # NumPy's where a space is Multi*
    if world.observer.penalties is not None and world.actions.kind != "profiles":
        raise RLPruneError(
            f"a policy over {world.actions.kind} cannot be exported for a range of penalties: what budgets cost with "
            "the profiles that are deployed is not known; train one with action='profiles'"
        )
    budgets = None if world.observer.penalties is None else measure_budgets(agent, world)
    policy = Policy(sizes, activation, world.observer, world.actions, codebook, budgets)
    targets = [layer for layer in policy.network if isinstance(layer, nn.Linear)]
    for target, source in zip(targets, layers, strict=True):
        target.load_state_dict({name: value.cpu() for name, value in source.state_dict().items()})
    return policy.eval()


def measure_budgets(agent: BaseAlgorithm, world: World, n: int = 17) -> Tensor:
    """Some of the penalties that an agent learnt, and what images cost at each on average.

    Returns:
        float64 (n, 2): ascending penalties, and the share of the dense network's MACs that each comes to on
            the world's images.
    """
    assert world.observer.penalties is not None
    penalties = world.observer.penalties.at(torch.linspace(0, 1, n, dtype=torch.float64))
    decide = _greedy(agent)
    shares = [run_sweep(world, decide, float(penalty)).macs.double().mean() for penalty in penalties]
    return monotone_budgets(torch.stack([penalties, torch.stack(shares)], 1))


def _greedy(agent: BaseAlgorithm) -> Decide:
    return lambda seen: agent.predict(seen, deterministic=True)[0]


def extract_codebook(agent: BaseAlgorithm, world: World, n_profiles: int = MAX_PROFILES) -> Tensor:
    """The profiles that an agent chooses most often on a world's images: int64 (K, G), K <= n_profiles."""
    levels = run_sweep(world, _greedy(agent)).levels.flatten(0, 1)
    profiles, counts = levels[levels[:, 0] >= 0].unique(dim=0, return_counts=True)
    return sorted_codebook(profiles[torch.argsort(counts, descending=True)[:n_profiles]], world.cost)
