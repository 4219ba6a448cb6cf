"""Layers of adjustable width: each knows which groups its input and output channels belong to.

A layer runs under a choice of keep levels: one per image, by masks on what consuming layers read, or one for the whole
batch, by slices of its weights. Both give the same numbers; only the second is cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.elastic.axes import Axis

_Layer = TypeVar("_Layer", bound=nn.Module)


@dataclass
class Choice:
    """Keep levels for one pass: for every image its own, or one profile for all.

    Attributes:
        levels: int64 (B, G), or (G,) for one profile.
        widths: channels that each group keeps, int64, same shape.
        nearest: index of the nearest profile of the codebook that the network is specialised to, int64 (B,), or () for
            one profile; None if it is not specialised.
        profile: the widths as numbers for one profile; else None.
        profile_levels: the levels as numbers for one profile; else empty.
        profile_nearest: the nearest profile as a number for one profile; else None.
    """

    levels: Tensor
    widths: Tensor
    nearest: Tensor | None = None
    profile: tuple[int, ...] | None = field(init=False)
    profile_levels: tuple[int, ...] = field(init=False)
    profile_nearest: int | None = field(init=False)

    def __post_init__(self) -> None:
        one = self.levels.ndim == 1
        self.profile_nearest = int(self.nearest) if one and self.nearest is not None else None
        self.profile = tuple(self.widths.tolist()) if one else None
        self.profile_levels = tuple(self.levels.tolist()) if one else ()


class Rates(NamedTuple):
    """A layer's cost: macs = n_in * n_out * `macs`, parameters = n_in * n_out * `params` + n_out * `params_per_out`."""

    macs: int
    params: int
    params_per_out: int


class ElasticLayer(nn.Module):
    """Base of the elastic layers, which compute masked or sliced, and can become plain layers.

    Args:
        in_axis: channels that the layer consumes.
        out_axis: channels that it produces or carries.
    """

    in_axis: Axis
    out_axis: Axis
    group: Tensor
    channel: Tensor
    channels_last = False

    def __init__(self, in_axis: Axis, out_axis: Axis) -> None:
        super().__init__()
        self.in_axis = in_axis
        self.out_axis = out_axis
        self.register_buffer("group", in_axis.group, persistent=False)
        self.register_buffer("channel", in_axis.channel, persistent=False)

    def forward(self, x: Tensor, choice: Choice) -> Tensor:
        """Apply the layer to x (B, C, ...): dense C under per-image levels, the kept channels only under a profile."""
        if choice.profile is not None:
            return self.sliced(x, choice)
        if self.in_axis.runs:
            mask = (self.channel < choice.widths[:, self.group]).to(x.dtype)
            inner = (1,) * (x.ndim - 2)
            x = x * (mask.view(len(mask), *inner, -1) if self.channels_last else mask.view(*mask.shape, *inner))
        return self.masked(x, choice)

    def masked(self, x: Tensor, choice: Choice) -> Tensor:
        """Apply the whole layer, every image under its own levels."""
        raise NotImplementedError

    def sliced(self, x: Tensor, choice: Choice) -> Tensor:
        """Apply the kept part of the layer, all images under one profile."""
        raise NotImplementedError

    def plain(self, choice: Choice) -> nn.Module:
        """An ordinary layer that holds a copy of the kept part."""
        raise NotImplementedError

    def constant(self, choice: Choice) -> Tensor:
        """The layer's result when its input group is dropped, per kept channel, float32 (C,)."""
        raise NotImplementedError

    def rates(self, shape: Sequence[int]) -> Rates:
        """What the layer costs per kept channel, when its dense output has this shape (1, C, ...)."""
        raise NotImplementedError

    def reorder(self, group: int, order: Tensor) -> None:
        """Put the channels of a group into another order, on every axis that holds them."""
        raise NotImplementedError


class GroupLayer(NamedTuple):
    """A layer that holds a group's channels: on which axis, at which positions, and which channel each is."""

    layer: ElasticLayer
    axis: Literal["in", "out"]
    positions: Tensor
    channels: Tensor


def move_channels(tensor: Tensor, dim: int, axis: Axis, group: int, order: Tensor) -> None:
    """Put a group's channels into another order, in place, along the dimension of a tensor that an axis describes."""
    if group in axis.groups:
        targets, sources = axis.positions(group, order)
        with torch.no_grad():
            tensor.index_copy_(dim, targets, tensor.index_select(dim, sources))


class ElasticConv2d(ElasticLayer):
    """A dense or depthwise convolution of adjustable width. A depthwise one carries channels and consumes none."""

    def __init__(self, layer: nn.Conv2d, in_axis: Axis, out_axis: Axis) -> None:
        grouped = layer.groups > 1
        super().__init__(Axis(1) if grouped else in_axis, out_axis)
        self.weight = layer.weight
        self.bias = layer.bias
        self.depthwise = grouped and bool(out_axis.runs)
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
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, groups)

    def masked(self, x: Tensor, choice: Choice) -> Tensor:
        """Convolve with all weights; x float (B, C, H, W)."""
        return self._apply_weight(x, self.weight, self.bias, self.groups)

    def _kept(self, choice: Choice) -> tuple[Tensor, Tensor | None, int]:
        assert choice.profile is not None
        out = self.out_axis.kept(choice.profile)
        weight = self.weight[out]
        bias = None if self.bias is None else self.bias[out]
        if self.depthwise:
            return weight, bias, weight.shape[0]
        return weight[:, self.in_axis.kept(choice.profile)], bias, self.groups

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
        if not self.depthwise:
            move_channels(self.weight, 1, self.in_axis, group, order)


class ElasticLinear(ElasticLayer):
    """A linear layer of adjustable width; its channels are the last dimension."""

    channels_last = True

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


def _bias_or_zeros(layer: ElasticConv2d | ElasticLinear, choice: Choice) -> Tensor:
    assert choice.profile is not None
    bias = layer.weight.new_zeros(layer.out_axis.size) if layer.bias is None else layer.bias
    return bias[layer.out_axis.kept(choice.profile)]


def filled(layer: _Layer, **tensors: Tensor | None) -> _Layer:
    """Fill a layer on the meta device with copies of these tensors as its parameters and buffers, and return it."""
    for name, value in tensors.items():
        if value is not None:
            copy = value.detach().clone().contiguous()
            setattr(layer, name, nn.Parameter(copy) if name in layer._parameters else copy)
    return layer
