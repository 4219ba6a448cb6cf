"""What an agent decides with: the linear layers from observations to actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn

from rlprune.errors import RLPruneError
from rlprune.policies.linear import ACTIVATIONS, Layer, linear_layers

_IN_THE_WAY = (
    "forward",
    "predict",
    "_predict",
    "obs_to_tensor",
    "extract_features",
    "get_distribution",
    "_get_action_dist_from_latent",
    "scale_action",
    "unscale_action",
)
"""Methods of Stable-Baselines3's policies between an observation and the action."""
_QUANTILES = "sb3_contrib.qrdqn.policies.QRDQNPolicy"
_TANH = "policy_kwargs={'activation_fn': torch.nn.Tanh}"


def actor_layers(agent: BaseAlgorithm) -> tuple[list[Layer], str]:
    """Copies of the linear layers that lead from observations to an agent's greedy actions, and the activation between.

    Args:
        agent: of PPO, A2C, TRPO or MaskablePPO, whose outputs are logits or means; of DQN or QRDQN, whose outputs are
            values (the mean of all quantiles); of SAC, TQC, TD3 or DDPG, whose outputs go through tanh; or of ARS.

    Raises:
        RLPruneError: its policy is of another kind, or does something else than linear layers and one of the
            activations that a policy may have.
    """
    policy = agent.policy
    kind = f"a {type(agent).__name__} with {type(policy).__name__} cannot be exported"
    known = next((each for each in type(policy).__mro__ if _name(each) in _MODULES), None)
    if known is None:
        raise RLPruneError(
            f"{kind}; train with PPO or A2C, or another of rlprune.agents.algorithms.NAMES, and 'MlpPolicy'"
        )
    own = [name for name in _IN_THE_WAY if getattr(type(policy), name, None) is not getattr(known, name, None)]
    if own:
        raise RLPruneError(f"{kind}: it has a {own[0]} of its own; train with 'MlpPolicy' as it is")
    try:
        modules, extractor = _MODULES[_name(known)](policy)
    except (AttributeError, TypeError) as error:
        raise RLPruneError(f"{kind}: it has networks of its own; train with 'MlpPolicy' as it is") from error
    if type(extractor) is not FlattenExtractor:
        raise RLPruneError(
            "an agent that normalises observations (VecNormalize) or extracts features cannot be exported; "
            f"observations come standardised, so train without {type(extractor).__name__}"
        )
    if getattr(policy, "squash_output", False) and not isinstance(modules[-1], nn.Tanh):
        modules = [*modules, nn.Tanh()]
    try:
        layers, activation = linear_layers(modules)
    except RLPruneError as error:
        squashed = isinstance(modules[-1], nn.Tanh) and type(modules[1]) in ACTIVATIONS.values()
        cure = f"train with PPO or A2C, or with {_TANH}, as its actions go through tanh" if squashed else str(error)
        raise RLPruneError(f"{kind}; {cure}") from error
    if _name(known) == _QUANTILES:
        layers[-1] = _mean_of(layers[-1], cast(int, policy.n_quantiles))
    return layers, activation


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _mean_of(layer: Layer, n_quantiles: int) -> Layer:
    """The layer whose outputs are means of quantiles, of which a layer gives those of all actions one after another."""
    weight, bias = layer
    means = weight.double().unflatten(0, (n_quantiles, -1)).mean(0)
    return means.float(), bias.double().unflatten(0, (n_quantiles, -1)).mean(0).to(torch.float32)


Modules = tuple[list[nn.Module], nn.Module]
"""What an observation goes through after its features are extracted, and what extracts them."""


def _of_actor_critic(policy: Any) -> Modules:
    extractor = policy.mlp_extractor
    if type(extractor) is not MlpExtractor:
        raise RLPruneError(
            f"a policy with {type(extractor).__name__} in place of MlpExtractor cannot be exported; train with "
            "'MlpPolicy' as it is"
        )
    features = getattr(policy, "pi_features_extractor", policy.features_extractor)
    return [*extractor.policy_net, policy.action_net], features


def _of_values(policy: Any) -> Modules:
    return [*policy.q_net.q_net], policy.q_net.features_extractor


def _of_quantiles(policy: Any) -> Modules:
    return [*policy.quantile_net.quantile_net], policy.quantile_net.features_extractor


def _of_gaussian_actor(policy: Any) -> Modules:
    return [*policy.actor.latent_pi, policy.actor.mu], policy.actor.features_extractor


def _of_actor(policy: Any) -> Modules:
    return [*policy.actor.mu], policy.actor.features_extractor


def _of_search(policy: Any) -> Modules:
    return [*policy.action_net], policy.features_extractor


_MODULES: dict[str, Callable[[Any], Modules]] = {
    "stable_baselines3.common.policies.ActorCriticPolicy": _of_actor_critic,
    "sb3_contrib.common.maskable.policies.MaskableActorCriticPolicy": _of_actor_critic,
    "stable_baselines3.dqn.policies.DQNPolicy": _of_values,
    _QUANTILES: _of_quantiles,
    "stable_baselines3.sac.policies.SACPolicy": _of_gaussian_actor,
    "sb3_contrib.tqc.policies.TQCPolicy": _of_gaussian_actor,
    "stable_baselines3.td3.policies.TD3Policy": _of_actor,
    "sb3_contrib.ars.policies.ARSPolicy": _of_search,
}
"""Where the policies of Stable-Baselines3 keep their modules, by the policies' names, as sb3-contrib may be missing."""
