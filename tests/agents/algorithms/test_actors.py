"""What is exported decides as the agent does, for every algorithm, on every observation of a set."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from nets import make_data, make_elastic
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from rlprune.agents import KeepRatioVecEnv, extract_policy
from rlprune.agents.algorithms.actors import actor_layers
from rlprune.agents.algorithms.masks import greedy, passes_entry
from rlprune.envs import World
from rlprune.errors import RLPruneError

contrib = pytest.importorskip("sb3_contrib")

NETWORK = make_elastic("residual")
DATA = make_data(40)
TANH = {"activation_fn": nn.Tanh}
CASES: list[tuple[Any, str, dict[str, Any]]] = [
    (PPO, "levels", {}),
    (A2C, "profiles", {}),
    (contrib.TRPO, "profiles", {}),
    (contrib.TRPO, "ratios", {}),
    (contrib.MaskablePPO, "profiles", {}),
    (contrib.MaskablePPO, "levels", {}),
    (DQN, "profiles", {}),
    (DQN, "profiles", {"activation_fn": nn.SiLU, "net_arch": [7, 5]}),
    (contrib.QRDQN, "profiles", {"n_quantiles": 9}),
    (contrib.QRDQN, "profiles", {"n_quantiles": 5, "activation_fn": nn.Tanh, "net_arch": []}),
    (SAC, "ratios", TANH),
    (contrib.TQC, "ratios", TANH),
    (TD3, "ratios", TANH),
    (DDPG, "ratios", TANH),
    (contrib.ARS, "profiles", {"with_bias": False}),
    (contrib.ARS, "ratios", TANH),
    (PPO, "ratios", {"squash_output": True}),
]


def make(kind: Any, action: Any, policy_kwargs: dict[str, Any], max_passes: int = 3) -> tuple[Any, World]:
    """An agent with random weights."""
    world = World(NETWORK, DATA, action=action, max_passes=max_passes)
    arguments: dict[str, Any] = {"buffer_size": 8} if kind in (DQN, contrib.QRDQN, SAC, contrib.TQC, TD3, DDPG) else {}
    arguments |= {"use_sde": True} if "squash_output" in policy_kwargs else {}
    env = KeepRatioVecEnv(world, 4)
    agent = kind("MlpPolicy", env, seed=0, device="cpu", policy_kwargs=dict(policy_kwargs), **arguments)
    torch.manual_seed(0)
    for parameter in agent.policy.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return agent, world


def observations(world: World, n: int = 500) -> Any:
    space = world.observation_space
    seen = np.random.default_rng(1).uniform(space.low, space.high, (n, *space.shape)).astype(np.float32)
    seen[:, passes_entry(world.observer)] = np.arange(n) % 3 / 3
    return seen


@pytest.mark.parametrize(("kind", "action", "policy_kwargs"), CASES)
@torch.no_grad()
def test_what_is_exported_decides_as_the_agent_does(kind: Any, action: str, policy_kwargs: dict[str, Any]) -> None:
    agent, world = make(kind, action, policy_kwargs)
    policy = extract_policy(agent, world)
    seen = observations(world)
    expected = greedy(agent, world.actions, world.observer)(seen).reshape(len(seen), -1)
    actual = policy.actions.greedy(policy.network(torch.from_numpy(seen))).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert len(np.unique(expected.round(2), axis=0)) > 1
    if kind is not contrib.MaskablePPO:
        np.testing.assert_array_equal(expected, agent.predict(seen, deterministic=True)[0].reshape(len(seen), -1))


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.ELU, nn.SiLU])
@pytest.mark.parametrize("net_arch", [[6], [6, 5, 4]])
@torch.no_grad()
def test_a_policy_that_learnt_with_masks_never_accepts_before_the_first_pass(activation: Any, net_arch: Any) -> None:
    agent, world = make(contrib.MaskablePPO, "profiles", {"activation_fn": activation, "net_arch": net_arch})
    nn.init.constant_(agent.policy.action_net.bias[-1:], 3.0)
    policy, seen = extract_policy(agent, world), torch.from_numpy(observations(world))
    first = seen[:, passes_entry(world.observer)] == 0
    outputs, plain = policy.network(seen), agent.policy.get_distribution(seen).distribution.logits
    assert bool((outputs[first, -1] < outputs[first, :-1].min(1).values).all())
    assert not bool((plain[first].argmax(1) < plain.shape[1] - 1).all())
    torch.testing.assert_close(outputs[~first].log_softmax(1), plain[~first], rtol=0, atol=2e-4)


class Own(ActorCriticPolicy):
    def _predict(self, observation: Any, deterministic: bool = False) -> Any:
        return super()._predict(-observation, deterministic)


class OwnNetworks(ActorCriticPolicy):
    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        self.mlp_extractor.policy_net.insert(1, nn.LayerNorm(self.mlp_extractor.policy_net[0].out_features))


class OwnValues(DQNPolicy):
    def make_q_net(self) -> Any:
        network = super().make_q_net()
        network.forward = lambda seen: -network.q_net(seen)  # type: ignore[method-assign]
        return network


class ReLU(nn.Module):  # which is none
    def forward(self, x: Any) -> Any:
        return x.abs()


@pytest.mark.parametrize(
    ("kind", "policy", "policy_kwargs", "message"),
    [
        (PPO, Own, {}, "a PPO with Own cannot be exported: it has a _predict of its own; train with 'MlpPolicy' as it"),
        (PPO, OwnNetworks, {}, "a policy cannot have LayerNorm"),
        (DQN, OwnValues, {}, "a DQN with OwnValues cannot be exported: it decides otherwise than its linear layers"),
        (PPO, "MlpPolicy", {"activation_fn": ReLU}, r"a policy cannot have ReLU\(\) between .*; allowed: Tanh, ReLU"),
        (PPO, "MlpPolicy", {"activation_fn": lambda: nn.ELU(0.5)}, r"a policy cannot have ELU\(alpha=0\.5\) between"),
        (
            contrib.RecurrentPPO,
            "MlpLstmPolicy",
            {},
            "a RecurrentPPO with RecurrentActorCriticPolicy cannot be exported",
        ),
    ],
)
def test_what_does_more_than_its_layers_is_refused(kind: Any, policy: Any, policy_kwargs: Any, message: str) -> None:
    world = World(NETWORK, DATA, action="profiles")
    more = {"buffer_size": 8} if kind is DQN else {}
    agent = kind(policy, KeepRatioVecEnv(world, 2), device="cpu", policy_kwargs=policy_kwargs, **more)
    with pytest.raises(RLPruneError, match=message):
        extract_policy(agent, world)


def test_actors_that_squash_need_tanh_between_their_layers_too() -> None:
    agent, _ = make(TD3, "ratios", {})
    message = "train with PPO or A2C, or with policy_kwargs={'activation_fn': torch.nn.Tanh}, as its actions go through"
    with pytest.raises(RLPruneError, match=re.escape(message)):
        actor_layers(agent)
