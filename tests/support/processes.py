"""What processes that are started anew import: a worker of torch's loader, and rollouts to compare."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN


class Predicted(Dataset[Tensor]):
    """Probabilities of images, as a network gives them where they are loaded."""

    def __init__(self, network: DynamicCNN, data: ImageSet) -> None:
        self.network, self.data = network, data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        return self.network(self.data.images[index : index + 1]).probabilities[0]


def rollout(env: gymnasium.Env[Any, Any], actions: NDArray[Any], seed: int) -> list[tuple[NDArray[np.float32], float]]:
    """First observation and rewards: what an environment gives for actions, one episode after the other."""
    seen = [(env.reset(seed=seed)[0], 0.0)]
    for action in actions:
        observation, reward, terminated, _, _ = env.step(action)
        seen.append((env.reset()[0] if terminated else observation, float(reward)))
    return seen


class Player:
    """Plays in the process of an actor."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env

    def play(self, actions: NDArray[Any], seed: int) -> list[tuple[NDArray[np.float32], float]]:
        return rollout(self.env, actions, seed)
