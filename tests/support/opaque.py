"""A layer that cannot be traced, and a network around it."""

from __future__ import annotations

from torch import Tensor, nn


class Gate(nn.Module):
    """Cannot be traced: what it does depends on what it sees."""

    def __init__(self, n_channels: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_channels, n_channels, 1) if n_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.mean() > 0 else -self.conv(x)


def with_gate(gate: nn.Module) -> nn.Sequential:
    """A small network with such a layer, of 16 channels, in its middle."""
    before = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), gate]
    return nn.Sequential(
        *before, nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
