"""Small networks inside a network that tell from a layer's input what of the layer an image needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rlprune.elastic.axes import Axis

GateKind = Literal["channels", "branches"]
KINDS: tuple[str, ...] = get_args(GateKind)
_START = 1.0
"""Bias that gates begin with: all of them open."""
ROOT = "gating"
"""Where gates, and what they act through, are put into a network."""
LEAST_HIDDEN = 4
"""Features inside the smallest gates."""


class Gate(nn.Module):
    """Squeeze and excite: an average over positions, two linear layers, a sigmoid.

    (Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018. It reads what a layer reads, and speaks of what it makes.)

    Args:
        n_in: channels of the layer's input.
        n_out: how many values to give, one for each channel that the layer makes, or one for a whole branch.
        n_hidden: features between.
        last: whether the input's channels are its last dimension, as a linear layer's are, not its second.
    """

    def __init__(self, n_in: int, n_out: int, n_hidden: int, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.reduce, self.expand = nn.Linear(n_in, n_hidden), nn.Linear(n_hidden, n_out)
        nn.init.constant_(self.expand.bias, _START)

    def forward(self, x: Tensor) -> Tensor:
        """A layer's input (B, C, ...) -> how much each is wanted, in (0, 1), float32 (B, n_out)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float().movedim(-1, 1) if self.last else x.float()
            pooled = x.flatten(2).mean(2) if x.ndim > 2 else x
            wanted: Tensor = self.expand(F.relu(self.reduce(pooled))).sigmoid()
        return wanted


def straight_through(wanted: Tensor, threshold: float) -> Tensor:
    """1 where a gate passes its threshold, else 0; its gradient is handed straight through (Bengio et al., 2013)."""
    hard = (wanted > threshold).to(wanted.dtype)
    return hard + (wanted - wanted.detach())  # in this order exactly 0 or 1


class Gated(nn.Module):
    """What gates act through.

    Attributes:
        threshold: what a gate has to pass.
        soft: whether everything runs, weighted by what the gates say, instead of what passes.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold, self.soft = threshold, False


class Mask(Gated):
    """Hides channels that are not wanted from the layer that would read them.

    Args:
        axis: the channels that the layer reads.
        group: index of the group that is gated.
        threshold: what a gate has to pass.
        last: whether the channels are the last dimension, not the second.
    """

    channel: Tensor

    def __init__(self, axis: Axis, group: int, threshold: float, *, last: bool) -> None:
        super().__init__(threshold)
        self.last = last
        channel = torch.where(axis.group == group, axis.channel, -1)
        self.register_buffer("channel", channel, persistent=False)

    def forward(self, x: Tensor, wanted: Tensor) -> Tensor:
        """Apply what gates of the group want, (B, channels), to x (B, C, ...)."""
        mask = wanted if self.soft else straight_through(wanted, self.threshold)
        mask = F.pad(mask, (0, 1), value=1.0)[:, self.channel]  # -1, the last: channels of other groups
        inner = (1,) * (x.ndim - 2)
        return x * mask.to(x.dtype).view((len(mask), *inner, -1) if self.last else (*mask.shape, *inner))


class Branch(Gated):
    """A branch that is weighted by its gate, and runs only for images whose gate passes.

    Args:
        body: inputs (B, ...) -> what it adds to a sum.
        macs: multiply-adds of that for one image.
        threshold: what a gate has to pass.
    """

    def __init__(self, body: fx.GraphModule, macs: int, threshold: float) -> None:
        super().__init__(threshold)
        self.body, self.macs = body, macs

    def forward(self, wanted: Tensor, *inputs: Tensor) -> Tensor:
        """What the branch adds, given how much its gate wants it, (B, 1); in training it runs for all images."""
        weight = wanted if self.soft else wanted * straight_through(wanted, self.threshold)
        if self.training or self.soft:
            return self._weighted(weight, inputs)
        runs = weight[:, 0].nonzero().flatten()
        if len(runs) == len(weight):
            return self._weighted(weight, inputs)
        if not len(runs):
            return inputs[0].new_zeros(())
        some = self._weighted(weight[runs], [x[runs] for x in inputs])
        return some.new_zeros(len(weight), *some.shape[1:]).index_copy(0, runs, some)

    def _weighted(self, weight: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        made: Tensor = self.body(*inputs)
        return made * weight.to(made.dtype).view(-1, *(1,) * (made.ndim - 1))
