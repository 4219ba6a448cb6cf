"""Numbers that are none: NaN and infinity are named where they appear, and taken for no prediction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlprune.errors import NotFiniteError

_STATISTICS = ("running_mean", "running_var")
_CURES = {
    torch.float16: "float16 ends at 65504; compute in bfloat16 or float32",
    torch.bfloat16: "compute in float32",
}


def finite_logits(logits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return logits as they are, once it is seen that they are numbers.

    Args:
        logits: of any shape.
        dtype: what the network computed in, for the message.

    Raises:
        NotFiniteError: one is NaN or infinite.
    """
    if bool(logits.isfinite().all()):
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
