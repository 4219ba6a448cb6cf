"""CNNs for small images: residual networks with parameter-free shortcuts, and plain chains."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (He et al. 2016, option A).

    Where the block halves the resolution, the shortcut takes every second pixel and pads new channels with zeros.

    Args:
        in_channels: channels of the input.
        channels: channels of the output, at least ``in_channels``.
        stride: 1, or 2 to halve the resolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.n_padded = (channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride != 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.n_padded, self.n_padded))
        return F.relu(out + x)


class ResNet(nn.Module):
    """CIFAR ResNet of depth ``6 n + 2`` with 16, 32 and 64 channels (He et al. 2016, section 4.2).

    Parameter names are those of github.com/akamaster/pytorch_resnet_cifar10, whose weights it loads.

    Args:
        n_blocks: blocks in each of the three stages.
        n_classes: number of logits.
        in_channels: channels of the images.
    """

    def __init__(self, n_blocks: int, n_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(n_blocks, 16, 16, stride=1)
        self.layer2 = _stage(n_blocks, 16, 32, stride=2)
        self.layer3 = _stage(n_blocks, 32, 64, stride=2)
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, n_classes)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


def _stage(n_blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    blocks = [BasicBlock(in_channels, channels, stride)]
    blocks += [BasicBlock(channels, channels, 1) for _ in range(n_blocks - 1)]
    return nn.Sequential(*blocks)


class Chain(nn.Module):
    """A plain CNN: ``features``, a global average pool, and one linear ``classifier``.

    Args:
        plan: (channels, stride) of each 3x3 convolution, which batch norm and ReLU follow; 0 channels is a max pool.
        n_classes: number of logits.
        in_channels: channels of the images.
        first_padding: pixels of zeros around the images in the first convolution; all other convolutions pad by 1.
    """

    def __init__(
        self, plan: tuple[tuple[int, int], ...], n_classes: int, in_channels: int, first_padding: int = 1
    ) -> None:
        super().__init__()
        self.features = nn.Sequential()
        padding = first_padding
        for channels, stride in plan:
            if channels == 0:
                self.features.append(nn.MaxPool2d(stride))
                continue
            self.features.append(nn.Conv2d(in_channels, channels, 3, stride, padding, bias=False))
            self.features.append(nn.BatchNorm2d(channels))
            self.features.append(nn.ReLU())
            in_channels = channels
            padding = 1
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(in_channels, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, n_classes)."""
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits
