"""PPO of RLlib on the environment, which it makes from `env_config`. `pip install 'ray[rllib]'`.

    python examples/clients/rllib_ppo.py --network runs/digits/network --data mnist5k --n-runners 2

Without `--n-runners`, everything runs in this process; with it, in so many actors of Ray. Paths in `env_config` are
best absolute: an actor may work in another folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
import tyro
from ray.rllib.algorithms.ppo import PPOConfig

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
    """Environments of each runner."""
    n_runners: int = 0
    """Actors that run them; 0 for none, in this process."""
    seed: int = 0
    """Of everything."""


def make_config(settings: Settings) -> PPOConfig:
    """PPO without discount, on environments made of plain values."""
    rollout = 16 * settings.n_envs * max(1, settings.n_runners)
    plain = {
        "network": str(Path(settings.network).absolute()),
        "data": settings.data,
        "penalty": settings.penalty,
    }
    return (
        PPOConfig()
        .environment(ENVIRONMENT, env_config=plain)
        .env_runners(num_env_runners=settings.n_runners, num_envs_per_env_runner=settings.n_envs)
        .training(gamma=1.0, lr=1e-3, entropy_coeff=0.01, num_epochs=4)
        .training(train_batch_size_per_learner=rollout, minibatch_size=64)
        .debugging(seed=settings.seed)
    )


def main(settings: Settings) -> list[float]:
    """Learn; the mean return of the episodes of each rollout."""
    ray.init(num_cpus=max(1, settings.n_runners), include_dashboard=False, log_to_driver=False)
    config = make_config(settings)
    algorithm = config.build_algo()
    rollouts = max(1, settings.steps // config.train_batch_size_per_learner)
    returns = [float(algorithm.train()["env_runners"]["episode_return_mean"]) for _ in range(rollouts)]
    algorithm.stop()
    ray.shutdown()
    tenth = max(1, len(returns) // 10)
    first, last = np.mean(returns[:tenth]), np.mean(returns[-tenth:])
    print(f"mean return of an episode: {first:.3f} at first, {last:.3f} at last")
    return returns


if __name__ == "__main__":
    main(tyro.cli(Settings))
