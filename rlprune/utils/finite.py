"""Numbers that are none: NaN and infinity are named where they appear, and taken for no prediction or argument."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.errors import NotFiniteError, SettingsError

_STATISTICS = ("running_mean", "running_var")
_FEW = 16
"""Numbers up to which Python is done before torch begins."""
_CURES = {
    torch.float16: "float16 ends at 65504; compute in bfloat16 or float32",
    torch.bfloat16: "compute in float32",
}


def check_whole(*, least: int = -(2**63), most: int = 2**31 - 1, **arguments: Any) -> None:
    """Make sure that arguments of a function are whole numbers of a size that it can work with.

    Args:
        least: the smallest that is allowed.
        most: the largest.
        arguments: by name.

    Raises:
        SettingsError: one is none; true and false are none.
    """
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
            low = f"from {least} to" if least > -(2**63) else "of at most"
            raise SettingsError(f"{name}={_shown(value)}: give a whole number {low} {most}")


def check_numbers(*, least: float = -math.inf, most: float = 1e9, **arguments: Any) -> None:
    """Make sure that arguments of a function are finite numbers of a size that it can work with.

    Args:
        least: the smallest that is allowed.
        most: the largest.
        arguments: by name.

    Raises:
        SettingsError: one is none; true and false are none.
    """
    for name, value in arguments.items():
        is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not is_number or value == -math.inf or not least <= value <= most:
            low = f"from {least:g} to" if least > -math.inf else "of at most"
            raise SettingsError(f"{name}={_shown(value)}: give a finite number {low} {most:g}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def finite_logits(logits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return logits as they are, once it is seen that they are numbers.

    Args:
        logits: of any shape.
        dtype: what the network computed in, for the message.

    Raises:
        NotFiniteError: one is NaN or infinite.
    """
    if logits.numel() <= _FEW and all(map(math.isfinite, logits.flatten().tolist())):
        return logits
    if math.isfinite(logits.sum().item()) or bool(logits.isfinite().all()):  # a finite sum has finite terms alone
        return logits
    name = str(dtype).removeprefix("torch.")
    cure = _CURES.get(dtype, "look for NaN in the weights, and for images that make a layer divide by zero")
    raise NotFiniteError(f"the network's logits are not finite in {name}; {cure}")


def not_finite_in(network: nn.Module) -> str | None:
    """The name of the first parameter, or statistic of a norm, that holds NaN or infinity; None if none does."""
    named = [*network.named_parameters(), *network.named_buffers()]
    tensors = [
        (name, value)
        for name, value in named
        if isinstance(value, nn.Parameter) or name.rpartition(".")[2] in _STATISTICS
    ]
    return next((name for name, value in tensors if not bool(value.isfinite().all())), None)
