"""Activations with a weight for each channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.elastic.axes import Axis
from rlprune.elastic.layers.base import Choice, ElasticLayer, Rates, filled, move_channels


class ElasticPReLU(ElasticLayer):
    """A rectifier with a slope for each channel; it carries channels and consumes none."""

    def __init__(self, layer: nn.PReLU, axis: Axis) -> None:
        super().__init__(Axis(1), axis)
        self.weight = layer.weight

    def masked(self, x: Tensor, choice: Choice) -> Tensor:
        """Rectify x float (B, C, ...)."""
        return F.prelu(x, self.weight)

    def _kept(self, choice: Choice) -> Tensor:
        assert choice.profile is not None
        return self.weight[self.out_axis.kept(choice.profile)]

    def sliced(self, x: Tensor, choice: Choice) -> Tensor:
        """Rectify x float (B, kept C, ...)."""
        return F.prelu(x, self._kept(choice))

    def plain(self, choice: Choice) -> nn.PReLU:
        """An `nn.PReLU` of the kept channels."""
        weight = self._kept(choice)
        return filled(nn.PReLU(len(weight), device="meta"), weight=weight)

    def rates(self, shape: Sequence[int]) -> Rates:
        """A slope per channel, and no multiplication by weights."""
        return Rates(0, 0, 1)

    def reorder(self, group: int, order: Tensor) -> None:
        """Permute slopes."""
        move_channels(self.weight, 0, self.out_axis, group, order)
