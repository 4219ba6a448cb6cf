"""A user's module: a reward and two observations of their own, and images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset


@dataclass(frozen=True)
class SquaredCost:
    """How sure the network is of the right class, minus the square of what was active."""

    weight: float = 1.0

    def __call__(self, step):
        sure = step.logits.softmax(1).gather(1, step.labels[:, None])[:, 0]
        return sure * step.done - self.weight * step.penalties * step.price.square()


@dataclass(frozen=True)
class Doubt:
    """How sure the prediction is, as its largest logits tell, and the passes made."""

    scale: float = 1.0
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def __call__(self, seen):
        margin = seen.logits.topk(2).values.diff(dim=1).neg() / self.scale
        return torch.cat([margin / (1 + margin), seen.passes[:, None] / seen.max_passes], 1)


class Brightness(nn.Module):
    """How far an image's features are from the mean of all, and the entropy of the prediction."""

    low, high = -3.0, 3.0
    cost = (0, 7)
    mean: Tensor

    def __init__(self, cells: int = 1):
        super().__init__()
        self.cells = cells
        self.register_buffer("mean", torch.zeros(0))

    def fit(self, batches):
        self.mean = torch.cat([self.pooled(batch) for batch in batches]).mean(0)

    def pooled(self, stem_features):
        return nn.functional.adaptive_avg_pool2d(stem_features, self.cells).flatten(1)

    def features(self, stem_features):
        return torch.tanh(self.pooled(stem_features) - self.mean)

    def forward(self, seen):
        shares = seen.logits.softmax(1)
        entropy = -(shares * shares.clamp(min=1e-20).log()).sum(1, keepdim=True)  # torch 2.11 exports no `entr`
        return torch.cat([seen.features, entropy * (seen.passes > 0)[:, None], seen.spent[:, None].clamp(0, 3)], 1)


def lamps() -> TensorDataset:
    """Bright and dark images, as those of `lamp`, with a label of each class."""
    greys = torch.where(torch.arange(64) % 2 == 0, 255, 89).to(torch.uint8)
    return TensorDataset(greys[:, None, None, None].expand(64, 1, 12, 12), torch.arange(64) % 4 // 2)
