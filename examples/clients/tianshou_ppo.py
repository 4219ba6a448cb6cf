"""PPO of Tianshou on the environment, which it makes from plain values. `pip install tianshou`.

    python examples/clients/tianshou_ppo.py --network runs/digits/network --data mnist5k --asynchronous

With `--asynchronous`, every environment runs in a process of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import gymnasium
import numpy as np
import torch
import tyro
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, SubprocVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic, dist_fn_categorical_from_logits
from tianshou.utils.torch_utils import policy_within_training_step, torch_train_mode

ENVIRONMENT = "rlprune.envs:rlprune/KeepRatioProfiles-v0"


@dataclass(frozen=True)
class Settings:
    """What is learnt, and for how long."""

    network: str = "runs/digits/network"
    """Folder that rlprune adapt, or export, wrote."""
    data: str = "mnist5k"
    """Images, as rlprune.data.load takes them."""
    penalty: float = 0.3
    """Price of running the whole network once, in right answers."""
    steps: int = 20_000
    """Decisions to learn from."""
    n_envs: int = 8
    """Environments at once."""
    asynchronous: bool = False
    """Run each environment in a process of its own."""
    seed: int = 0
    """Of everything."""


def make_algorithm(space: gymnasium.Space, actions: gymnasium.spaces.Discrete) -> PPO:
    """PPO without discount, with two hidden layers for policy and value."""
    layers = partial(Net, state_shape=space.shape, hidden_sizes=(64, 64), activation=torch.nn.Tanh)
    policy = ProbabilisticActorPolicy(
        actor=DiscreteActor(preprocess_net=layers(), action_shape=actions.n, softmax_output=False),
        dist_fn=dist_fn_categorical_from_logits,
        action_space=actions,
        action_scaling=False,
        action_bound_method=None,
    )
    critic = DiscreteCritic(preprocess_net=layers())
    return PPO(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=1e-3), gamma=1.0)


def main(settings: Settings) -> list[float]:
    """Learn; the mean return of the episodes of each rollout."""
    torch.manual_seed(settings.seed)
    make = partial(gymnasium.make, ENVIRONMENT, network=settings.network, data=settings.data, penalty=settings.penalty)
    kind = SubprocVectorEnv if settings.asynchronous else DummyVectorEnv
    envs = kind([make] * settings.n_envs)
    envs.seed(settings.seed)
    algorithm = make_algorithm(envs.observation_space[0], envs.action_space[0])
    collector = Collector(algorithm, envs, VectorReplayBuffer(16 * settings.n_envs, settings.n_envs))
    collector.reset()
    returns: list[float] = []
    for _ in range(max(1, settings.steps // (16 * settings.n_envs))):
        with policy_within_training_step(algorithm.policy):
            found = collector.collect(n_step=16 * settings.n_envs)
            with torch_train_mode(algorithm):
                algorithm.update(collector.buffer, batch_size=64, repeat=4)
        collector.reset_buffer(keep_statistics=True)
        returns.append(float(np.mean(found.returns)))
    envs.close()
    tenth = max(1, len(returns) // 10)
    first, last = np.mean(returns[:tenth]), np.mean(returns[-tenth:])
    print(f"mean return of an episode: {first:.3f} at first, {last:.3f} at last")
    return returns


if __name__ == "__main__":
    main(tyro.cli(Settings))
