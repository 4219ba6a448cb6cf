"""Batch norms and dropout as one process would compute them, where a batch is divided among several."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from rlprune.training.parallel.group import Group


class OfWholeBatch(TorchFunctionMode):
    """A context in which batch norms that train use the statistics of the whole batch, and dropout draws for all of it.

    Every norm that PyTorch's `batch_norm` computes is meant, elastic or not: no layer is replaced, so that networks and
    what is stored of them stay as they are. (`torch.nn.SyncBatchNorm` replaces layers, does not know elastic ones, and
    refuses CPUs.) Dropout draws the numbers that one process would draw, of which each takes its own: all processes
    have the same state, which is that of one.

    Args:
        group: who has the batch.
        n: images of the whole batch.
        own: which of them are this process's.
    """

    def __init__(self, group: Group, n: int, own: slice) -> None:
        super().__init__()
        self.group = group
        self.n = n
        self.own = own

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, or what stands for it here."""
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """`torch.nn.functional.batch_norm`, whose arguments have these names."""
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        y, mean, var, count = _Normalised.apply(x, weight, bias, eps, self.group)
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            if running_var is not None:
                running_var.lerp_((var * (count / (count - 1).clamp_min(1))).to(running_var.dtype), momentum)
        return y  # type: ignore[no-any-return]

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """`torch.nn.functional.dropout`, whose arguments have these names."""
        n_own = self.own.stop - self.own.start
        if not training or not p or input.shape[:1] != (n_own,):  # features that are no batch have no part of one
            return F.dropout(input, p, training, inplace)
        ones = input.new_ones(self.n, *input.shape[1:]).contiguous(memory_format=_format_of(input))
        kept = F.dropout(ones, p, True)[self.own]
        return input.mul_(kept) if inplace else input * kept


def _format_of(x: Tensor) -> torch.memory_format:
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


class _Normalised(torch.autograd.Function):
    """Features normalised by the mean and variance of those of all processes.

    With x' = (x - mean) / sqrt(var + eps) over n values of a channel and g = dL/dy, the gradient of x is
    weight / sqrt(var + eps) * (g - sum(g) / n - x' sum(g x') / n): sums over all processes, whose losses depend on x.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: Group
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalise x (B, C, ...) of this process; also the mean, variance (C,) and number of values of all."""
        over = [0, *range(2, x.ndim)]
        wide = x.float()
        own_var, own_mean = torch.var_mean(wide, over, correction=0)
        own_count = own_mean.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        said = group.gather(torch.cat([own_count, own_mean.double(), own_var.double()])[None])
        counts, means, variances = said.split([1, x.shape[1], x.shape[1]], 1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        var = (counts * (variances + (means - mean).square())).sum(0) / count
        scale = (var + eps).rsqrt().float()
        shape = (1, -1, *(1 for _ in over[1:]))
        normed = (wide - mean.float().view(shape)) * scale.view(shape)
        y = normed if weight is None else normed * weight.view(shape)
        y = y if bias is None else y + bias.view(shape)
        ctx.save_for_backward(normed, scale, weight)
        ctx.count, ctx.over, ctx.shape, ctx.group = count, over, shape, group
        ctx.has_bias = bias is not None
        ctx.mark_non_differentiable(mean, var, count)
        return y.to(x.dtype), mean, var, count

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias; those of the last two are this process's, to be added up later."""
        normed, scale, weight = ctx.saved_tensors
        g = gradient.float()
        sums = torch.stack([g.sum(ctx.over), (g * normed).sum(ctx.over)])
        of_bias, of_weight = sums
        both = ctx.group.sum(sums.clone()) / ctx.count
        mean_g, mean_gx = (each.view(ctx.shape) for each in both)
        scale = scale if weight is None else scale * weight
        of_x = ((g - mean_g - normed * mean_gx) * scale.view(ctx.shape)).to(gradient.dtype)
        return of_x, None if weight is None else of_weight, of_bias if ctx.has_bias else None, None, None
