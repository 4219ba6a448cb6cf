"""Batch norms with one set of parameters and statistics per keep level, or per profile of a codebook."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.elastic.axes import Axis
from rlprune.elastic.layers.base import Choice, ElasticLayer, Rates, filled, move_channels


class ElasticBatchNorm(ElasticLayer):
    """A batch norm with one set of parameters and statistics per keep level of a group, or per profile of a codebook.

    Widths change statistics, so slimmable networks keep them apart (Yu et al., "Slimmable Neural Networks", ICLR 2019).
    The group is the one that the layer before consumes; where that consumes a residual stream, whose statistics follow
    from all blocks before, the group of the norm's own channels tells profiles apart. Where a consumed group is
    dropped, what is left is a learnt bias. Per-image levels always use the running statistics.

    Args:
        layer: the norm to start from; every level starts as its copy.
        axis: its channels.
        switch: index of the group whose level chooses the set; None keeps a single set.
        n_levels: number of sets.
        dropped: whether level 0 drops the group, and with it everything that this norm reads.
        device: where the parameters of a norm that has none are put.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        layer: nn.BatchNorm2d | nn.BatchNorm1d,
        axis: Axis,
        switch: int | None,
        n_levels: int,
        dropped: bool,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(Axis(1), axis)
        self.kind = type(layer)
        self.switch = switch
        self.dropped = dropped
        self.eps = layer.eps
        self.momentum = 0.1 if layer.momentum is None else layer.momentum
        n_sets = 1 if switch is None else n_levels
        ones = torch.ones(axis.size, device=device)
        zeros = torch.zeros(axis.size, device=device)
        weight, bias = (ones, zeros) if layer.weight is None else (layer.weight.detach(), layer.bias.detach())
        mean, var = (zeros, ones) if layer.running_mean is None else (layer.running_mean, layer.running_var)
        self.weight = nn.Parameter(weight.repeat(n_sets, 1))
        self.bias = nn.Parameter(bias.repeat(n_sets, 1))
        self.register_buffer("running_mean", mean.repeat(n_sets, 1))
        self.register_buffer("running_var", torch.as_tensor(var).repeat(n_sets, 1))
        self.per_profile = False

    def masked(self, x: Tensor, choice: Choice) -> Tensor:
        """Normalise x (B, C, ...) by the running statistics of each image's level."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        sets = self._sets(choice.levels, choice.nearest)
        scale = scale[sets]
        shift = shift[sets]
        if self.dropped:
            gone = (choice.levels[:, self.switch] == 0)[:, None]
            scale = scale.masked_fill(gone, 0)
            shift = torch.where(gone, self.bias[sets], shift)
        shape = scale.shape + (1,) * (x.ndim - 2)
        return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype)

    def specialise(self, codebook: Tensor) -> None:
        """Replace the sets by one per profile of a codebook (K, G), each a copy of the set that the profile used."""
        sets = self._sets(codebook, None)
        for name in ("weight", "bias"):
            setattr(self, name, nn.Parameter(getattr(self, name).detach()[sets]))
        self.running_mean = self.running_mean[sets]
        self.running_var = self.running_var[sets]
        self.per_profile = True

    def _sets(self, levels: Tensor, nearest: Tensor | None) -> Tensor:
        """Which set each row of levels (B, G) uses, int64 (B,)."""
        if self.per_profile:
            assert nearest is not None
            return nearest
        return torch.zeros_like(levels[:, 0]) if self.switch is None else levels[:, self.switch]

    def _set(self, choice: Choice) -> int:
        """Which set a profile uses."""
        if self.per_profile:
            assert choice.profile_nearest is not None
            return choice.profile_nearest
        return 0 if self.switch is None else choice.profile_levels[self.switch]

    def sliced(self, x: Tensor, choice: Choice) -> Tensor:
        """Normalise x (B, kept C, ...): by its own statistics when training, which updates those of this level."""
        assert choice.profile is not None
        one = self._set(choice)
        kept = self.out_axis.kept(choice.profile)
        mean = self.running_mean[one][kept]
        var = self.running_var[one][kept]
        y = F.batch_norm(
            x, mean, var, self.weight[one][kept], self.bias[one][kept], self.training, self.momentum, self.eps
        )
        if self.training and isinstance(kept, Tensor):  # indexing copied, so the update must be written back
            self.running_mean[one, kept] = mean
            self.running_var[one, kept] = var
        return y

    def plain(self, choice: Choice) -> nn.BatchNorm2d | nn.BatchNorm1d:
        """An ordinary batch norm of the kept channels, with the set of this choice."""
        assert choice.profile is not None
        one = self._set(choice)
        kept = self.out_axis.kept(choice.profile)
        tensors = {n: getattr(self, n)[one][kept] for n in ("weight", "bias", "running_mean", "running_var")}
        layer = self.kind(len(tensors["bias"]), self.eps, self.momentum, device="meta")
        return filled(layer, **tensors, num_batches_tracked=torch.tensor(0, device=self.weight.device))

    def constant(self, choice: Choice) -> Tensor:
        """The learnt bias of the set of this choice."""
        assert choice.profile is not None
        return self.bias[self._set(choice)][self.out_axis.kept(choice.profile)]

    def rates(self, shape: Sequence[int]) -> Rates:
        """Scale and shift; a norm multiplies no weights, and folds into the convolution before it."""
        return Rates(0, 0, 2)

    def reorder(self, group: int, order: Tensor) -> None:
        """Permute parameters and statistics of every level."""
        for tensor in (self.weight, self.bias, self.running_mean, self.running_var):
            move_channels(tensor, 1, self.out_axis, group, order)
