"""Elastic convolutions and linear layers, whose outputs each read all inputs of their convolution group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.elastic.axes import Axis
from rlprune.elastic.layers.base import Choice, ElasticLayer, Rates, filled, move_channels


class ElasticConv2d(ElasticLayer):
    """A convolution of adjustable width. A grouped or depthwise one carries channels and consumes none.

    Convolution groups stay whole: outputs that are kept are all those of some convolution groups.
    """

    filter_dims: ClassVar[dict[str, int] | None] = {"in": 1, "out": 0}

    def __init__(self, layer: nn.Conv2d, in_axis: Axis, out_axis: Axis) -> None:
        super().__init__(Axis(1) if layer.groups > 1 else in_axis, out_axis)
        self.weight = layer.weight
        self.bias = layer.bias
        self.stride = layer.stride
        self.padding = layer.padding
        self.dilation = layer.dilation
        self.groups = layer.groups
        self.padding_mode = layer.padding_mode
        self._padding = getattr(layer, "_reversed_padding_repeated_twice", [])

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self._padding, mode=self.padding_mode)
            padding = (0, 0)
        stride = self.stride
        if torch.is_grad_enabled() and self._subsamples(weight, groups):
            x = x[..., :: int(stride[0]), :: int(stride[1])]
            stride = (1, 1)
        return F.conv2d(x, weight, bias, stride, padding, self.dilation, groups)

    def _subsamples(self, weight: Tensor, groups: int) -> bool:
        """Whether few channels are read at every other position alone, which it is safer to pick first.

        On CPUs, the backward pass of PyTorch 2.13 ends the process there, where channels come last in memory.
        """
        pointwise = tuple(weight.shape[2:]) == (1, 1) and self.padding == (0, 0) and groups == 1
        return pointwise and weight.shape[1] <= 8 and tuple(self.stride) != (1, 1)

    def masked(self, x: Tensor, choice: Choice) -> Tensor:
        """Convolve with all weights; x float (B, C, H, W)."""
        return self._apply_weight(x, self.weight, self.bias, self.groups)

    def _kept(self, choice: Choice) -> tuple[Tensor, Tensor | None, int]:
        assert choice.profile is not None
        out = self.out_axis.kept(choice.profile)
        weight = self.weight[out]
        bias = None if self.bias is None else self.bias[out]
        if self.groups > 1:
            return weight, bias, len(weight) * self.groups // self.out_axis.size
        return weight[:, self.in_axis.kept(choice.profile)], bias, 1

    def sliced(self, x: Tensor, choice: Choice) -> Tensor:
        """Convolve with the kept weights; x float (B, kept C, H, W)."""
        weight, bias, groups = self._kept(choice)
        return self._apply_weight(x, weight, bias, groups)

    def plain(self, choice: Choice) -> nn.Conv2d:
        """An `nn.Conv2d` of the kept channels."""
        weight, bias, groups = self._kept(choice)
        layer = nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            weight.shape[2:],  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            groups,
            bias is not None,
            self.padding_mode,
            device="meta",
        )
        return filled(layer, weight=weight, bias=bias)

    def constant(self, choice: Choice) -> Tensor:
        """The bias: what a convolution gives when its inputs are dropped."""
        return _bias_or_zeros(self, choice)

    def rates(self, shape: Sequence[int]) -> Rates:
        """One MAC per weight and output position; a grouped convolution reads a fixed number of inputs."""
        per_pair = math.prod(self.weight.shape[2:]) * (self.weight.shape[1] if self.groups > 1 else 1)
        return Rates(per_pair * math.prod(shape[2:]), per_pair, int(self.bias is not None))

    def reorder(self, group: int, order: Tensor) -> None:
        """Permute filters, and the slices of filters that read the group."""
        move_channels(self.weight, 0, self.out_axis, group, order)
        if self.bias is not None:
            move_channels(self.bias, 0, self.out_axis, group, order)
        if self.groups == 1:
            move_channels(self.weight, 1, self.in_axis, group, order)


class ElasticConvTranspose2d(ElasticLayer):
    """A transposed convolution of adjustable width, whose weight has inputs first."""

    filter_dims: ClassVar[dict[str, int] | None] = {"in": 0, "out": 1}

    def __init__(self, layer: nn.ConvTranspose2d, in_axis: Axis, out_axis: Axis) -> None:
        assert layer.groups == 1
        super().__init__(in_axis, out_axis)
        self.weight = layer.weight
        self.bias = layer.bias
        self.stride: tuple[int, ...] = layer.stride
        self.padding = _numbers(layer.padding)
        self.output_padding: tuple[int, ...] = layer.output_padding
        self.dilation: tuple[int, ...] = layer.dilation

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv_transpose2d(
            x, weight, bias, self.stride, self.padding, self.output_padding, dilation=self.dilation
        )

    def masked(self, x: Tensor, choice: Choice) -> Tensor:
        """Convolve with all weights; x float (B, C, H, W)."""
        return self._apply_weight(x, self.weight, self.bias)

    def _kept(self, choice: Choice) -> tuple[Tensor, Tensor | None]:
        assert choice.profile is not None
        out = self.out_axis.kept(choice.profile)
        weight = self.weight[self.in_axis.kept(choice.profile)][:, out]
        return weight, None if self.bias is None else self.bias[out]

    def sliced(self, x: Tensor, choice: Choice) -> Tensor:
        """Convolve with the kept weights; x float (B, kept C, H, W)."""
        return self._apply_weight(x, *self._kept(choice))

    def plain(self, choice: Choice) -> nn.ConvTranspose2d:
        """An `nn.ConvTranspose2d` of the kept channels."""
        weight, bias = self._kept(choice)
        layer = nn.ConvTranspose2d(
            weight.shape[0],
            weight.shape[1],
            weight.shape[2:],  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.output_padding,  # type: ignore[arg-type]
            bias=bias is not None,
            dilation=self.dilation,  # type: ignore[arg-type]
            device="meta",
        )
        return filled(layer, weight=weight, bias=bias)

    def constant(self, choice: Choice) -> Tensor:
        """The bias."""
        return _bias_or_zeros(self, choice)

    def rates(self, shape: Sequence[int]) -> Rates:
        """One MAC per weight and input position."""
        kernel = self.weight.shape[2:]
        taps = [d * (k - 1) + 1 for k, d in zip(kernel, self.dilation, strict=True)]
        margins = [o - 2 * p for o, p in zip(self.output_padding, self.padding, strict=True)]
        sizes = zip(shape[2:], taps, margins, self.stride, strict=True)
        n_inputs = math.prod((size - tap - margin) // step + 1 for size, tap, margin, step in sizes)
        return Rates(math.prod(kernel) * n_inputs, math.prod(kernel), int(self.bias is not None))

    def reorder(self, group: int, order: Tensor) -> None:
        """Permute filters, and the slices of filters that read the group."""
        move_channels(self.weight, 1, self.out_axis, group, order)
        if self.bias is not None:
            move_channels(self.bias, 0, self.out_axis, group, order)
        move_channels(self.weight, 0, self.in_axis, group, order)


class ElasticLinear(ElasticLayer):
    """A linear layer of adjustable width; its channels are the last dimension."""

    channels_last = True
    filter_dims: ClassVar[dict[str, int] | None] = {"in": 1, "out": 0}

    def __init__(self, layer: nn.Linear, in_axis: Axis, out_axis: Axis) -> None:
        super().__init__(in_axis, out_axis)
        self.weight = layer.weight
        self.bias = layer.bias

    def masked(self, x: Tensor, choice: Choice) -> Tensor:
        """Multiply with all weights; x float (B, features)."""
        return F.linear(x, self.weight, self.bias)

    def _kept(self, choice: Choice) -> tuple[Tensor, Tensor | None]:
        assert choice.profile is not None
        out = self.out_axis.kept(choice.profile)
        weight = self.weight[out][:, self.in_axis.kept(choice.profile)]
        bias = None if self.bias is None else self.bias[out]
        return weight, bias

    def sliced(self, x: Tensor, choice: Choice) -> Tensor:
        """Multiply with the kept weights; x float (B, kept features)."""
        weight, bias = self._kept(choice)
        return F.linear(x, weight, bias)

    def plain(self, choice: Choice) -> nn.Linear:
        """An `nn.Linear` of the kept features."""
        weight, bias = self._kept(choice)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        return filled(layer, weight=weight, bias=bias)

    def constant(self, choice: Choice) -> Tensor:
        """The bias."""
        return _bias_or_zeros(self, choice)

    def rates(self, shape: Sequence[int]) -> Rates:
        """One MAC per weight."""
        return Rates(math.prod(shape[1:-1]), 1, int(self.bias is not None))

    def reorder(self, group: int, order: Tensor) -> None:
        """Permute rows, and the columns that read the group."""
        move_channels(self.weight, 0, self.out_axis, group, order)
        if self.bias is not None:
            move_channels(self.bias, 0, self.out_axis, group, order)
        move_channels(self.weight, 1, self.in_axis, group, order)


def _numbers(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    """A padding that is no word: transposed convolutions take none."""
    assert not isinstance(padding, str)
    return padding


def _bias_or_zeros(layer: ElasticConv2d | ElasticConvTranspose2d | ElasticLinear, choice: Choice) -> Tensor:
    assert choice.profile is not None
    bias = layer.weight.new_zeros(layer.out_axis.size) if layer.bias is None else layer.bias
    return bias[layer.out_axis.kept(choice.profile)]
