"""PPO as one loop, as CleanRL writes it: nothing but Gymnasium and PyTorch.

    python examples/clients/cleanrl_loop.py --network runs/digits/network --data mnist5k --mode async

Copy the file and change what is yours. `--mode vector_entry_point` runs the batched twin: one call of the network for
all images, which is the fastest; `sync` and `async` run so many environments, in this process or in one each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical

ENVIRONMENT = "rlprune.envs:rlprune/KeepRatioProfiles-v0"


@dataclass(frozen=True)
class Settings:
    """What is learnt, and how."""

    network: str = "runs/digits/network"
    """Folder that rlprune adapt, or export, wrote."""
    data: str = "mnist5k"
    """Images, as rlprune.data.load takes them."""
    penalty: float = 0.3
    """Price of running the whole network once, in right answers."""
    steps: int = 20_000
    """Decisions to learn from."""
    mode: Literal["sync", "async", "vector_entry_point"] = "vector_entry_point"
    """How several environments run at once."""
    n_envs: int = 32
    """How many."""
    n_steps: int = 16
    """Steps of each per rollout."""
    n_epochs: int = 4
    """Passes over each rollout."""
    n_batches: int = 4
    """Gradient steps of each pass."""
    learning_rate: float = 1e-3
    """Of Adam."""
    clip: float = 0.2
    """How far the new policy may leave the old one."""
    entropy: float = 0.01
    """Bonus for undecided policies."""
    gae_lambda: float = 0.95
    """Of the advantages; there is no discount, as episodes have at most three steps."""
    seed: int = 0
    """Of everything."""


class Agent(nn.Module):
    """A policy and a value function, each with two hidden layers."""

    def __init__(self, n_observed: int, n_actions: int) -> None:
        super().__init__()
        self.actor = _layers(n_observed, n_actions)
        self.critic = _layers(n_observed, 1)

    def forward(self, observations: Tensor) -> tuple[Categorical, Tensor]:
        """Observations (B, D) -> distributions over profiles, and values (B,)."""
        return Categorical(logits=self.actor(observations)), self.critic(observations).squeeze(-1)


def _layers(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, n_out))


def make_envs(settings: Settings) -> VectorEnv[Any, Any, Any]:
    """So many environments at once; one that ends restarts in the same step, whichever way they run."""
    same_step = {} if settings.mode == "vector_entry_point" else {"autoreset_mode": AutoresetMode.SAME_STEP}
    return gymnasium.make_vec(
        ENVIRONMENT,
        settings.n_envs,
        settings.mode,
        vector_kwargs=same_step,
        network=settings.network,
        data=settings.data,
        penalty=settings.penalty,
    )


class Rollout:
    """What some steps of all environments gave, float32 or int64 (steps, environments) each."""

    def __init__(self, agent: Agent, envs: VectorEnv[Any, Any, Any], observed: Any, n_steps: int) -> None:
        kept: list[tuple[Tensor, ...]] = []
        for _ in range(n_steps):
            observations = torch.as_tensor(observed)
            with torch.no_grad():
                policy, values = agent(observations)
            actions = policy.sample()
            observed, rewards, terminated, truncated, _ = envs.step(actions.numpy())
            ended = torch.as_tensor(terminated | truncated)
            rewards = torch.as_tensor(rewards, dtype=torch.float32)
            kept.append((observations, actions, policy.log_prob(actions), values, rewards, ended))
        self.last = observed
        columns = [torch.stack(column) for column in zip(*kept, strict=True)]
        self.observations, self.actions, self.log_probs, self.values, self.rewards, self.ended = columns

    def advantages(self, next_values: Tensor, gae_lambda: float) -> Tensor:
        """Generalised advantage estimates without discount (Schulman et al., 2016), (steps, environments)."""
        found = torch.zeros_like(self.rewards)
        following = torch.zeros_like(next_values)
        for step in reversed(range(len(self.rewards))):
            goes_on = 1.0 - self.ended[step].float()
            surprise = self.rewards[step] + goes_on * next_values - self.values[step]
            following = surprise + goes_on * gae_lambda * following
            found[step], next_values = following, self.values[step]
        return found


def improve(agent: Agent, optimizer: torch.optim.Optimizer, rollout: Rollout, settings: Settings) -> None:
    """PPO's update (Schulman et al., 2017)."""
    with torch.no_grad():
        _, next_values = agent(torch.as_tensor(rollout.last))
    advantages = rollout.advantages(next_values, settings.gae_lambda)
    returns = (advantages + rollout.values).flatten()
    advantages = ((advantages - advantages.mean()) / (advantages.std() + 1e-8)).flatten()
    observations, actions = rollout.observations.flatten(0, 1), rollout.actions.flatten()
    old_log_probs = rollout.log_probs.flatten()
    for _ in range(settings.n_epochs):
        for batch in torch.randperm(len(actions)).chunk(settings.n_batches):
            policy, values = agent(observations[batch])
            ratio = (policy.log_prob(actions[batch]) - old_log_probs[batch]).exp()
            clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            gain = torch.min(advantages[batch] * ratio, advantages[batch] * clipped).mean()
            loss = (values - returns[batch]).square().mean() / 2 - gain - settings.entropy * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def main(settings: Settings) -> list[float]:
    """Learn; the mean return of the episodes of each rollout."""
    torch.manual_seed(settings.seed)
    envs = make_envs(settings)
    agent = Agent(envs.single_observation_space.shape[0], int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=settings.learning_rate)
    observed, _ = envs.reset(seed=settings.seed)
    returns: list[float] = []
    for _ in range(max(1, settings.steps // (settings.n_envs * settings.n_steps))):
        rollout = Rollout(agent, envs, observed, settings.n_steps)
        improve(agent, optimizer, rollout, settings)
        observed = rollout.last
        returns.append(float(rollout.rewards.sum() / max(1, int(rollout.ended.sum()))))
    envs.close()
    tenth = max(1, len(returns) // 10)
    first, last = np.mean(returns[:tenth]), np.mean(returns[-tenth:])
    print(f"mean return of an episode: {first:.3f} at first, {last:.3f} at last")
    return returns


if __name__ == "__main__":
    main(tyro.cli(Settings))
