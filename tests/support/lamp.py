"""A world with a known optimum: the network's two profiles are each right where the other is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.policies.policy import Policy

SHORT: dict[str, Any] = {"total_steps": 1024, "validate_every": 512}
"""Settings of a training that learns nothing much, at once."""


class Lamp(nn.Module):
    """Right (class 0) with half of its inner channels if the image is bright, and with all of them if it is dark.

    A pixel x gives the inner channels max(x, 0) and max(-x, 0). The half that matters most weighs them 0.2 to -0.2, the
    other half -1 to 1; the logit of class 1 is 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(1, 8, 1, bias=False), nn.Conv2d(8, 16, 1, bias=False)
        self.linear = nn.Linear(16, 2, bias=False)
        sign = torch.tensor([1.0, -1.0]).repeat(8)
        size = torch.tensor([1.0] * 8 + [0.5] * 8)
        by_pair = torch.tensor([1.0, -0.9, 1.0, -0.9, -0.5, -0.5, -0.5, -0.5]).repeat_interleave(2)
        with torch.no_grad():
            self.stem.weight[:, 0, 0, 0] = sign[:8]
            self.inner.weight.zero_()
            self.inner.weight[:, :2, 0, 0] = torch.where(sign[:, None] == torch.tensor([1.0, -1.0]), size[:, None], 0)
            self.linear.weight.zero_()
            self.linear.weight[0] = 12 * by_pair * sign

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.inner(F.relu(self.stem(x))))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def make_lamp() -> ElasticCNN:
    """The elastic network with two profiles, each right where the other one is wrong."""
    return ElasticCNN.from_model(Lamp(), (1, 12, 12), keep_ratios=(0.5, 1.0))


def make_lamp_data(n: int) -> ImageSet:
    """Bright images (even indices) and, not quite as far from grey, dark ones; all of class 0."""
    levels = torch.where(torch.arange(n) % 2 == 0, 255, 89).to(torch.uint8)  # 1 and -0.3 when normalised
    images = levels[:, None, None, None].expand(n, 1, 12, 12).contiguous()
    return ImageSet(images, torch.zeros(n, dtype=torch.int64), ("lit", "unlit"), (0.5,), (0.5,))


def lamp_settings(**change: Any) -> PolicySettings:
    """Enough to learn this world in a second or two, from random weights."""
    quick: dict[str, Any] = {
        "begin": "random",
        "penalty": 0.2,
        "control_variate": False,
        "total_steps": 10240,
        "n_envs": 64,
        "batch_size": 128,
        "hidden": (16,),
        "learning_rate": 5e-3,
        "entropy": 0.002,
    }
    return PolicySettings(**(quick | change))


def train_lamp(folder: Path, settings: PolicySettings, **arguments: Any) -> Policy:
    """Learn this world."""
    return train_policy(
        make_lamp(), make_lamp_data(64), make_lamp_data(16), folder, settings, progress=False, **arguments
    )


def same(one: Policy, other: Policy) -> bool:
    """Whether two policies decide alike, to the bit."""
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())
