"""Gates, small networks inside a network that decide from a layer's input which channels or branches an image needs."""

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
"""Initial bias of gates, at which all are open."""
ROOT = "gating"
"""Name of the module that holds gates, masks and branches in a network."""
LEAST_HIDDEN = 4
"""Size of the hidden layer of the smallest gates."""


class Gate(nn.Module):
    """Squeeze and excite: an average over positions, two linear layers, a sigmoid.

    (Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018. A gate reads a layer's input and judges its output.)

    Args:
        n_in: channels of the layer's input.
        n_out: number of probabilities: one for each output channel of the layer, or one for a whole branch.
        n_hidden: size of the hidden layer.
        last: whether the input's channels are its last dimension, as a linear layer's are, not its second.
        device: where its weights are.
    """

    def __init__(self, n_in: int, n_out: int, n_hidden: int, *, last: bool, device: torch.device | None = None) -> None:
        super().__init__()
        self.last = last
        self.reduce = nn.Linear(n_in, n_hidden, device=device)
        self.expand = nn.Linear(n_hidden, n_out, device=device)
        nn.init.constant_(self.expand.bias, _START)

    def forward(self, x: Tensor) -> Tensor:
        """A layer's input, float (B, C, ...) -> probabilities in (0, 1), float32 (B, n_out)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float().movedim(-1, 1) if self.last else x.float()
            pooled = x.flatten(2).mean(2) if x.ndim > 2 else x
            gate_probs: Tensor = self.expand(F.relu(self.reduce(pooled))).sigmoid()
        return gate_probs


def straight_through(gate_probs: Tensor, threshold: float) -> Tensor:
    """1 where a probability is above the threshold, else 0; the gradient is that of the identity.

    (Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013.)

    Args:
        gate_probs: float in (0, 1), any shape.
        threshold: in (0, 1).
    """
    hard = (gate_probs > threshold).to(gate_probs.dtype)
    return hard + (gate_probs - gate_probs.detach())  # in this order exactly 0 or 1


class Gated(nn.Module):
    """Base of the modules that apply gates.

    Attributes:
        threshold: probability above which a channel or branch stays.
        soft: whether everything runs, weighted by the probabilities, instead of only what is above the threshold.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.soft = False


class Mask(Gated):
    """Hides the channels below the threshold from the layer that reads them.

    Args:
        axis: the channels that the layer reads.
        group: index of the gated group.
        threshold: probability above which a channel stays.
        last: whether the channels are the last dimension, not the second.
    """

    channel: Tensor

    def __init__(self, axis: Axis, group: int, threshold: float, *, last: bool) -> None:
        super().__init__(threshold)
        self.last = last
        channel = torch.where(axis.group == group, axis.channel, -1)
        self.register_buffer("channel", channel, persistent=False)

    def forward(self, x: Tensor, gate_probs: Tensor) -> Tensor:
        """Apply the group's probabilities, float32 (B, channels), to x, float (B, C, ...)."""
        mask = gate_probs if self.soft else straight_through(gate_probs, self.threshold)
        mask = F.pad(mask, (0, 1), value=1.0)[:, self.channel]  # -1, the last: channels of other groups
        inner = (1,) * (x.ndim - 2)
        return x * mask.to(x.dtype).view((len(mask), *inner, -1) if self.last else (*mask.shape, *inner))


class Branch(Gated):
    """A branch that is weighted by its gate, and runs only for images whose gate passes.

    Args:
        body: inputs (B, ...) -> the summand of the branch.
        macs: MACs of the branch for one image.
        threshold: probability above which the branch runs.
    """

    def __init__(self, body: fx.GraphModule, macs: int, threshold: float) -> None:
        super().__init__(threshold)
        self.body = body
        self.macs = macs

    def forward(self, gate_probs: Tensor, *inputs: Tensor) -> Tensor:
        """The weighted summand of the branch; in training it is computed for all images.

        Args:
            gate_probs: of the branch's gate, float32 (B, 1).
            inputs: of the branch, (B, ...) each.
        """
        weight = gate_probs if self.soft else gate_probs * straight_through(gate_probs, self.threshold)
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
        summand: Tensor = self.body(*inputs)
        inner = (1,) * (summand.ndim - 1)
        return summand * weight.to(summand.dtype).view(-1, *inner)
