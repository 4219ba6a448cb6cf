"""Kinds of layers: which produce and consume channels, which carry them, and how many each holds."""

from __future__ import annotations

from typing import Any

from torch import nn

_CARRIERS = (nn.BatchNorm2d, nn.BatchNorm1d, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm, nn.PReLU)
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def is_dense(layer: nn.Module) -> bool:
    """Whether each output of a layer reads all of its inputs."""
    kind: Any = layer
    return type(layer) is nn.Linear or (type(layer) in _CONVOLUTIONS and kind.groups == 1)


def is_grouped(layer: nn.Module) -> bool:
    """Whether a convolution's outputs each read the inputs of their own convolution group alone; depthwise is one."""
    return type(layer) is nn.Conv2d and layer.groups > 1


def is_carrier(layer: nn.Module) -> bool:
    """Whether a layer treats channels one by one, or whole groups of them, and can be sliced."""
    return type(layer) in _CARRIERS or is_grouped(layer)


def is_blind(layer: nn.Module) -> bool:
    """Whether a layer with weights treats all channels alike: a rectifier with a single slope."""
    return type(layer) is nn.PReLU and layer.num_parameters == 1


def channels_last(layer: nn.Module) -> bool:
    """Whether a layer's channels are the last dimension of its input, not the second."""
    return isinstance(layer, nn.Linear | nn.LayerNorm)


def axis_sizes(layer: nn.Module) -> tuple[int, int] | None:
    """How many inputs and outputs a layer has; None where it is of no kind that holds channels of groups."""
    kind: Any = layer
    if type(layer) is nn.Linear:
        return layer.in_features, layer.out_features
    if type(layer) in _CONVOLUTIONS:
        return kind.in_channels, kind.out_channels
    if type(layer) not in _CARRIERS or is_blind(layer):
        return None
    if isinstance(layer, nn.LayerNorm):
        return (layer.normalized_shape[-1],) * 2 if len(layer.normalized_shape) == 1 else None
    names = {nn.GroupNorm: "num_channels", nn.PReLU: "num_parameters"}
    size: int = getattr(layer, names.get(type(layer), "num_features"))
    return size, size
