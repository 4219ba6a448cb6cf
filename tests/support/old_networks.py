"""The small network that the folders of earlier versions were made of, and its images; neither may change."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

IMAGE_SHAPE = (3, 8, 8)
N_CLASSES = 3


class Tiny(nn.Module):
    """A residual block between a stem and a linear layer, of a few hundred weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.bn1 = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv3, self.bn3 = nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def tiny() -> Tiny:
    """With weights that a seed fixes, and norms that are not the identity."""
    torch.manual_seed(0)
    model = Tiny()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, 0, 0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
    return model.eval()


def pixels(n: int = 60) -> tuple[Tensor, Tensor]:
    """Three soiled colours, uint8 (n, 3, 8, 8), and which each is, int64 (n,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % N_CLASSES
    palette = torch.tensor([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    images = palette[labels][:, :, None, None] + torch.randint(-60, 56, (n, *IMAGE_SHAPE), generator=generator)
    return images.to(torch.uint8), labels


def images() -> TensorDataset:
    """The same as a data set, for `--data old_networks:images`."""
    return TensorDataset(*pixels())
