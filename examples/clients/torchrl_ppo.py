"""PPO of TorchRL on the environment, which it makes from plain values. `pip install torchrl`.

    python examples/clients/torchrl_ppo.py --network runs/digits/network --data mnist5k --asynchronous

With `--asynchronous`, every environment runs in a process of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import tyro
from tensordict.nn import TensorDictModule
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, GymEnv, ParallelEnv, RewardSum, SerialEnv, TransformedEnv
from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

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


def make_env(settings: Settings) -> EnvBase:
    """So many environments, with the return of the episode so far as one more entry."""
    make = partial(
        GymEnv,
        ENVIRONMENT,
        categorical_action_encoding=True,
        network=settings.network,
        data=settings.data,
        penalty=settings.penalty,
    )
    kind = ParallelEnv if settings.asynchronous else SerialEnv
    return TransformedEnv(kind(settings.n_envs, make), RewardSum())


def main(settings: Settings) -> list[float]:
    """Learn; the mean return of the episodes of each rollout."""
    torch.manual_seed(settings.seed)
    env = make_env(settings)
    env.set_seed(settings.seed)
    layers = partial(MLP, num_cells=[64, 64], activation_class=torch.nn.Tanh)
    n_observed, n_actions = env.observation_spec["observation"].shape[-1], env.action_spec.space.n
    actor = ProbabilisticActor(
        TensorDictModule(layers(n_observed, n_actions), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=Categorical,
        return_log_prob=True,
    )
    critic = ValueOperator(layers(n_observed, 1))
    advantage = GAE(gamma=1.0, lmbda=0.95, value_network=critic)  # no discount: episodes have at most three steps
    loss = ClipPPOLoss(actor, critic, entropy_coeff=0.01, normalize_advantage=True)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    rollout = 16 * settings.n_envs
    returns: list[float] = []
    n_rollouts = max(1, settings.steps // rollout)
    collector = Collector(env, actor, frames_per_batch=rollout, total_frames=n_rollouts * rollout)
    for steps in collector:
        for _ in range(4):
            with torch.no_grad():
                advantage(steps)
            for batch in steps.flatten()[torch.randperm(steps.numel())].split(64):
                losses = loss(batch)
                optimizer.zero_grad()
                (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
                optimizer.step()
        returns.append(float(steps["next", "episode_reward"][steps["next", "done"]].mean()))
    collector.shutdown()
    tenth = max(1, len(returns) // 10)
    first, last = np.mean(returns[:tenth]), np.mean(returns[-tenth:])
    print(f"mean return of an episode: {first:.3f} at first, {last:.3f} at last")
    return returns


if __name__ == "__main__":
    main(tyro.cli(Settings))
