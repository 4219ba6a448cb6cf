"""What all layers of adjustable width share: each knows which groups its input and output channels belong to.

A layer runs under a choice of keep levels: one per image, by masks on what consuming layers read, or one for the whole
batch, by slices of its weights. Both give the same numbers; only the second is cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from rlprune.elastic.axes import Axis

_Layer = TypeVar("_Layer", bound=nn.Module)
_MANY = 10_000_000
"""Weights of more elements are permuted part by part, without a second copy of all of them."""


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
    """Whether channels are the last dimension of features, not the second."""
    filter_dims: ClassVar[dict[str, int] | None] = None
    """Dimensions of the weight that run over inputs and outputs; None where no weights tell channels apart."""

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
            x = x * self.mask(choice, x)
        return self.masked(x, choice)

    def mask(self, choice: Choice, x: Tensor) -> Tensor:
        """1 for the inputs that each image keeps and 0 for others, of the type of x (B, C, ...), to be multiplied."""
        mask = (self.channel < choice.widths[:, self.group]).to(x.dtype)
        inner = (1,) * (x.ndim - 2)
        return mask.view(len(mask), *inner, -1) if self.channels_last else mask.view(*mask.shape, *inner)

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

    def filters(self, weight: Tensor, axis: Literal["in", "out"]) -> Tensor:
        """A tensor of the weight's shape with what belongs to one input or output in each row, (C, n)."""
        assert self.filter_dims is not None
        return weight.movedim(self.filter_dims[axis], 0).flatten(1)

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
        parts = [tensor] if tensor.numel() < _MANY else tensor.split(256, 1 - dim)
        with torch.no_grad():
            for part in parts:
                part.index_copy_(dim, targets, part.index_select(dim, sources))


def filled(layer: _Layer, **tensors: Tensor | None) -> _Layer:
    """Fill a layer on the meta device with copies of these tensors as its parameters and buffers, and return it."""
    for name, value in tensors.items():
        if value is not None:
            copy = value.detach().clone().contiguous()
            setattr(layer, name, nn.Parameter(copy) if name in layer._parameters else copy)
    return layer
