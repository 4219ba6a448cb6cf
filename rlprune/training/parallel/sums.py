"""What is added up over processes: gradients after a step, and means within one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlprune.training.parallel.group import Group, current


def sum_gradients(network: nn.Module) -> None:
    """Add up the gradients of all processes, in place.

    Once after a step, not while it goes backward, as `DistributedDataParallel` does: a step has several passes
    backward, through other parameters each, and what such hooks wait for would have to be told every time. Parameters
    that no profile of a step touched have no gradient in any process, and keep having none.

    Args:
        network: whose parameters have the gradients of this process's share of the loss.

    Raises:
        ClusterError: a process was lost.
    """
    group = current()
    if group.size == 1:
        return
    found: dict[torch.dtype, list[Tensor]] = {}
    for parameter in network.parameters():
        if parameter.grad is not None:
            found.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in found.values():
        flat = group.sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))


def average(value: Tensor, n: int) -> Tensor:
    """The mean of a figure over the images of all processes, for a loss that is no mean over images itself.

    Args:
        value: the mean over this process's images, scalar; gradients go through it.
        n: how many those are.

    Raises:
        ClusterError: a process was lost.
    """
    group = current()
    found: Tensor = value if group.size == 1 else _Average.apply(value, n, group)
    return found


class _Average(torch.autograd.Function):
    """The mean over the images of all processes; the loss of each depends on it, so their gradients add up."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, n: int, group: Group) -> Tensor:
        """The mean."""
        total, count = group.sum(torch.stack([value.detach() * n, value.new_tensor(n)]))
        ctx.share, ctx.group = n / count, group
        mean: Tensor = total / count
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of this process's mean."""
        own: Tensor = ctx.group.sum(gradient.clone()) * ctx.share
        return own, None, None
