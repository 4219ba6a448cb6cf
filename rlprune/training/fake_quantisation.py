"""Training that feels the rounding of eight-bit integers, so that what is quantised afterwards is used to it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_COMPUTES = (F.conv2d, F.linear)
_LEAST = torch.finfo(torch.float32).tiny
"""Of a step between two numbers, where all are 0."""


class Rounded(TorchFunctionMode):
    """A context in which convolutions and linear layers compute with what int8 leaves of their inputs and weights.

    The weights themselves stay as exact as they are, and learn through the rounding (quantisation-aware training: Jacob
    et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
    Whatever a layer computes with is rounded: a slice, where it is a slice. The steps are those of a file that
    `rlprune.deployment.quantisation` makes: norms, folded into the weights there, change the size of a channel's steps
    and nothing else. Sums and biases, which a file rounds too, are left exact here.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, with rounded arguments if it is one of those."""
        if func in _COMPUTES:
            x, weight, *rest = args
            args = (round_features(x), round_weights(weight), *rest)
        return func(*args, **(kwargs or {}))


def round_weights(weight: Tensor) -> Tensor:
    """Weights (out, ...) as int8 has them: 255 steps, symmetric, of a size for every output channel.

    Gradients pass as if nothing had been done.
    """
    largest = weight.detach().abs().flatten(1).amax(1)
    zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, (largest / 127).clamp_min(_LEAST), zeros, 0, -127, 127)


def round_features(x: Tensor) -> Tensor:
    """Features as uint8 has them: 256 steps over the range of the batch and 0; gradients pass within it."""
    low, high = x.detach().aminmax()
    low = low.clamp_max(0)
    high = high.clamp_min(0)
    step = ((high - low) / 255).clamp_min(_LEAST)
    return torch.fake_quantize_per_tensor_affine(x, step, (-low / step).round().int(), 0, 255)
