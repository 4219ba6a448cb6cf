from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nets import make_data, make_elastic
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize
from torch import Tensor, nn

from rlprune.agents import KeepRatioVecEnv
from rlprune.agents.extract import extract_codebook, extract_policy
from rlprune.envs import World, run_sweep
from rlprune.errors import RLPruneError

NETWORK = make_elastic("residual")
DATA = make_data(40)
kinds = pytest.mark.parametrize("action", ["profiles", "levels", "ratios"])


def make(action: Any, max_passes: int = 1, algorithm: Any = PPO, **arguments: Any) -> tuple[BaseAlgorithm, World]:
    """An agent whose weights are random, so that it decides one way here and another there."""
    world = World(NETWORK, DATA, action=action, max_passes=max_passes)
    agent = algorithm("MlpPolicy", KeepRatioVecEnv(world, 4), seed=0, device="cpu", **arguments)
    torch.manual_seed(0)
    for parameter in agent.policy.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    return agent, world


def observations(world: World, n: int = 300) -> Any:
    space = world.observation_space
    return np.random.default_rng(0).uniform(space.low, space.high, (n, *space.shape)).astype(np.float32)


@kinds
@pytest.mark.parametrize("max_passes", [1, 2])
@torch.no_grad()
def test_greedy_actions_are_the_agent_s(action: Any, max_passes: int) -> None:
    agent, world = make(action, max_passes)
    seen = observations(world)
    expected = agent.predict(seen, deterministic=True)[0].reshape(len(seen), -1)
    policy = extract_policy(agent, world)
    actual = policy.actions.greedy(policy.network(torch.from_numpy(seen))).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert len(np.unique(expected, axis=0)) > 1


@kinds
def test_other_layers_and_another_algorithm(action: Any) -> None:
    options = {"net_arch": {"pi": [8, 6, 5], "vf": [3]}, "activation_fn": nn.ELU}
    agent, world = make(action, 2, A2C, policy_kwargs=options)
    policy = extract_policy(agent, world)
    assert policy.sizes[1:-1] == (8, 6, 5) and policy.activation == "ELU"
    outputs = policy.actions.greedy(policy.network(torch.from_numpy(observations(world)))).detach()
    expected = agent.predict(observations(world), deterministic=True)[0].reshape(len(outputs), -1)
    np.testing.assert_allclose(outputs.numpy(), expected, atol=1e-6)


def test_what_is_extracted_is_a_copy() -> None:
    agent, world = make("profiles")
    policy = extract_policy(agent, world)
    before = policy.network[0].weight.clone()
    nn.init.zeros_(agent.policy.mlp_extractor.policy_net[0].weight)
    assert torch.equal(policy.network[0].weight, before)


@pytest.mark.parametrize("action", ["levels", "ratios"])
def test_boiling_down_keeps_the_profiles_used_most(action: Any) -> None:
    agent, world = make(action, 2)
    levels = run_sweep(world, lambda seen: agent.predict(seen, deterministic=True)[0]).levels.flatten(0, 1)
    profiles, counts = levels[levels[:, 0] >= 0].unique(dim=0, return_counts=True)
    kept = extract_codebook(agent, world, n_profiles=4)
    is_kept = (profiles[:, None] == kept).all(-1).any(1)
    macs = world.cost.of(kept).macs
    assert len(kept) == 4 == is_kept.sum() and len(profiles) > 4
    assert counts[is_kept].min() >= counts[~is_kept].max()
    assert torch.equal(macs, macs.sort().values)


def test_few_profiles_are_all_kept_and_a_codebook_can_be_given() -> None:
    agent, world = make("levels")
    all_of_them = run_sweep(world, lambda seen: agent.predict(seen, deterministic=True)[0]).levels[:, 0].unique(dim=0)
    assert sorted(extract_codebook(agent, world, n_profiles=100).tolist()) == all_of_them.tolist()
    assert torch.equal(extract_policy(agent, world, NETWORK.full[None]).codebook, NETWORK.full[None])


def test_a_policy_over_profiles_keeps_the_world_s_codebook() -> None:
    agent, world = make("profiles")
    assert world.actions.codebook is not None
    assert torch.equal(extract_policy(agent, world).codebook, world.actions.codebook)


def test_an_agent_of_another_kind_is_refused() -> None:
    world = World(NETWORK, DATA, action="ratios")
    agent = SAC("MlpPolicy", KeepRatioVecEnv(world, 2), device="cpu", buffer_size=10)
    with pytest.raises(RLPruneError, match="a SAC with SACPolicy cannot be exported; train with PPO or A2C"):
        extract_policy(agent, world)


def test_an_agent_with_normalised_observations_is_refused() -> None:
    world = World(NETWORK, DATA, action="profiles")
    agent = PPO("MlpPolicy", VecNormalize(KeepRatioVecEnv(world, 2), norm_reward=False), device="cpu")
    with pytest.raises(RLPruneError, match=r"an agent that normalises observations .* cannot be exported"):
        extract_policy(agent, world)


class Halved(BaseFeaturesExtractor):
    def __init__(self, space: Any) -> None:
        super().__init__(space, space.shape[0])

    def forward(self, observations: Tensor) -> Tensor:
        return observations / 2


class HalvedFlat(FlattenExtractor):
    def forward(self, observations: Tensor) -> Tensor:
        return super().forward(observations) / 2


@pytest.mark.parametrize("extractor", [Halved, HalvedFlat])
def test_an_agent_with_features_of_its_own_is_refused(extractor: Any) -> None:
    agent, world = make("profiles", policy_kwargs={"features_extractor_class": extractor})
    with pytest.raises(RLPruneError, match=r"or extracts features cannot be exported; .* train without"):
        extract_policy(agent, world)


def test_a_monitor_around_the_environment_does_not_matter() -> None:
    agent, world = make("profiles")
    agent.set_env(VecMonitor(KeepRatioVecEnv(world, 4)))
    assert extract_policy(agent, world).observer is world.observer
