"""Training that feels the rounding of eight-bit integers, so that what is quantised afterwards is used to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rlprune.layers import ElasticConv2d, ElasticLinear

_COMPUTES = (nn.Conv2d, nn.Linear, ElasticConv2d, ElasticLinear)
_LEAST = torch.finfo(torch.float32).tiny
"""Of a step between two numbers, where all are 0."""


class RoundedWeight(nn.Module):
    """Weights as int8 has them: 255 steps, symmetric, of a size for every output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        """Round weights (out, ...); gradients pass as if nothing had been done."""
        largest = weight.detach().abs().flatten(1).amax(1)
        zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(weight, (largest / 127).clamp_min(_LEAST), zeros, 0, -127, 127)


def round_features(x: Tensor) -> Tensor:
    """Features as uint8 has them: 256 steps over the range of the batch and 0; gradients pass within it."""
    low, high = x.detach().float().aminmax()
    low, high = low.clamp_max(0), high.clamp_min(0)
    step = ((high - low) / 255).clamp_min(_LEAST)
    return torch.fake_quantize_per_tensor_affine(x, step, (-low / step).round().int(), 0, 255)


@contextmanager
def rounded(*networks: nn.Module) -> Iterator[None]:
    """Let convolutions and linear layers compute, in here, with what int8 would leave of their inputs and weights.

    The weights themselves stay as exact as they are, and learn through the rounding (quantisation-aware training: Jacob
    et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
    The numbers are those that `rlprune.quantise` gives a file: norms, folded into the weights there, change the size of
    a channel's steps and nothing else.
    """
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, _COMPUTES)]
    hooks = [layer.register_forward_pre_hook(_round_input) for layer in layers]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", RoundedWeight())
    try:
        yield
    finally:
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
            others = [name for name in layer._parameters if name != "weight"]
            layer._parameters.update({name: layer._parameters.pop(name) for name in others})  # behind it, as before
        for hook in hooks:
            hook.remove()


def _round_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    x, *rest = inputs
    return round_features(x), *rest
