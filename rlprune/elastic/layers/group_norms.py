"""Norms whose statistics each image computes anew, of channels one by one, in groups, or all together.

They have no statistics to keep per level, and one set of scales and shifts for all levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.elastic.axes import Axis, Kept
from rlprune.elastic.layers.base import Choice, ElasticLayer, Rates, filled, move_channels


class _AffineNorm(ElasticLayer):
    """A norm that carries channels, and may scale and shift each."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, layer: Any, axis: Axis) -> None:
        super().__init__(axis, axis)
        self.weight = layer.weight
        self.bias = layer.bias
        self.eps: float = layer.eps

    def _kept(self, choice: Choice) -> tuple[Kept, Tensor | None, Tensor | None]:
        """The positions that a profile keeps, and their scales and shifts."""
        assert choice.profile is not None
        kept = self.out_axis.kept(choice.profile)
        weight, bias = (None if value is None else value[kept] for value in (self.weight, self.bias))
        return kept, weight, bias

    def _n_kept(self, kept: Kept) -> int:
        return int(torch.arange(self.out_axis.size)[kept].numel())

    def _tensors(self) -> list[Tensor]:
        """What has one value per channel."""
        return [value for value in (self.weight, self.bias) if value is not None]

    def _scaled(self, x: Tensor) -> Tensor:
        """Scale and shift all channels of x (B, C, ...), or (B, ..., C) where they come last."""
        shape = (-1,) if self.channels_last else (-1, *(1,) * (x.ndim - 2))
        x = x if self.weight is None else x * self.weight.view(shape)
        return x if self.bias is None else x + self.bias.view(shape)

    def _normalised(self, x: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Normalise x over some dimensions by what a mask leaves of it; what is masked gets any values."""
        n_kept = mask.expand_as(x).sum(dims, keepdim=True).clamp_min(1)
        mean = x.sum(dims, keepdim=True) / n_kept
        centred = (x - mean) * mask
        variance = centred.square().sum(dims, keepdim=True) / n_kept
        return self._scaled(centred * (variance + self.eps).rsqrt()).to(x.dtype)

    def constant(self, choice: Choice) -> Tensor:
        """Never asked for: these norms end no branch that drops."""
        raise NotImplementedError

    def rates(self, shape: Sequence[int]) -> Rates:
        """A scale and a shift per channel; a norm multiplies no weights."""
        return Rates(0, 0, len(self._tensors()))

    def reorder(self, group: int, order: Tensor) -> None:
        """Permute what has one value per channel."""
        for tensor in self._tensors():
            move_channels(tensor, 0, self.out_axis, group, order)


class ElasticLayerNorm(_AffineNorm):
    """A layer norm over the channels that are kept, which are the last dimension."""

    channels_last = True

    def masked(self, x: Tensor, choice: Choice) -> Tensor:
        """Normalise x (B, ..., C), every image over the channels that it keeps."""
        if not self.out_axis.runs:
            return F.layer_norm(x, (self.out_axis.size,), self.weight, self.bias, self.eps)
        return self._normalised(x, self.mask(choice, x), (-1,))

    def sliced(self, x: Tensor, choice: Choice) -> Tensor:
        """Normalise x (B, ..., kept C)."""
        _, weight, bias = self._kept(choice)
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)

    def plain(self, choice: Choice) -> nn.LayerNorm:
        """An `nn.LayerNorm` of the kept channels."""
        kept, weight, bias = self._kept(choice)
        layer = nn.LayerNorm(self._n_kept(kept), self.eps, weight is not None, bias is not None, device="meta")
        return filled(layer, weight=weight, bias=bias)


class ElasticGroupNorm(_AffineNorm):
    """A norm over groups of channels, each of which is kept whole or not at all; a single one is over what is kept."""

    def __init__(self, layer: nn.GroupNorm, axis: Axis) -> None:
        super().__init__(layer, axis)
        self.num_groups = layer.num_groups

    def masked(self, x: Tensor, choice: Choice) -> Tensor:
        """Normalise x (B, C, ...), every image over the channels that it keeps."""
        if self.num_groups == 1 and self.out_axis.runs:
            return self._normalised(x, self.mask(choice, x), tuple(range(1, x.ndim)))
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def _groups(self, n_channels: int) -> int:
        """How many norm groups are left when so many channels are."""
        return max(1, n_channels * self.num_groups // self.out_axis.size)

    def sliced(self, x: Tensor, choice: Choice) -> Tensor:
        """Normalise x (B, kept C, ...)."""
        _, weight, bias = self._kept(choice)
        return F.group_norm(x, self._groups(x.shape[1]), weight, bias, self.eps)

    def plain(self, choice: Choice) -> nn.GroupNorm:
        """An `nn.GroupNorm` of the kept channels."""
        kept, weight, bias = self._kept(choice)
        n_kept = self._n_kept(kept)
        layer = nn.GroupNorm(self._groups(n_kept), n_kept, self.eps, weight is not None, device="meta")
        return filled(layer, weight=weight, bias=bias)


class ElasticInstanceNorm2d(_AffineNorm):
    """A norm of each channel by its own statistics: those of the image, or running ones where it has them."""

    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(self, layer: nn.InstanceNorm2d, axis: Axis) -> None:
        super().__init__(layer, axis)
        self.momentum = layer.momentum
        self.register_buffer("running_mean", layer.running_mean)
        self.register_buffer("running_var", layer.running_var)

    def _tensors(self) -> list[Tensor]:
        statistics = [value for value in (self.running_mean, self.running_var) if value is not None]
        return super()._tensors() + statistics

    def masked(self, x: Tensor, choice: Choice) -> Tensor:
        """Normalise x (B, C, H, W); running statistics are read, and not updated."""
        if self.training or self.running_mean is None:
            return F.instance_norm(x, None, None, self.weight, self.bias, True, eps=self.eps)
        return F.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, eps=self.eps)

    def sliced(self, x: Tensor, choice: Choice) -> Tensor:
        """Normalise x (B, kept C, H, W): by its own statistics when training, which updates the running ones."""
        kept, weight, bias = self._kept(choice)
        if self.running_mean is None or self.running_var is None:
            return F.instance_norm(x, None, None, weight, bias, True, eps=self.eps)
        mean = self.running_mean[kept]
        var = self.running_var[kept]
        momentum = 0.0 if self.momentum is None else self.momentum
        y = F.instance_norm(x, mean, var, weight, bias, self.training, momentum, self.eps)
        if self.training and isinstance(kept, Tensor):  # indexing copied, so the update must be written back
            self.running_mean[kept] = mean
            self.running_var[kept] = var
        return y

    def plain(self, choice: Choice) -> nn.InstanceNorm2d:
        """An `nn.InstanceNorm2d` of the kept channels."""
        kept, weight, bias = self._kept(choice)
        tracks = self.running_mean is not None
        momentum: Any = self.momentum
        layer = nn.InstanceNorm2d(self._n_kept(kept), self.eps, momentum, weight is not None, tracks, device="meta")
        if self.running_mean is None or self.running_var is None:
            return filled(layer, weight=weight, bias=bias)
        statistics = {"running_mean": self.running_mean[kept], "running_var": self.running_var[kept]}
        n_batches = torch.tensor(0, device=self.running_mean.device)
        return filled(layer, weight=weight, bias=bias, **statistics, num_batches_tracked=n_batches)

    def rates(self, shape: Sequence[int]) -> Rates:
        """A scale and a shift per channel."""
        return Rates(0, 0, len(super()._tensors()))
