"""`GatedCNN`, a network that decides layer by layer what an image needs, by gates instead of a policy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from rlprune.baselines.gate_insertion import insert_branch_gates, insert_channel_gates
from rlprune.baselines.gate_layers import KINDS, ROOT, Branch, Gated
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import ModelError
from rlprune.graph.folding import fold
from rlprune.profiles.cost import ComputeCost, Cost, mlp_cost
from rlprune.utils.finite import check_numbers, check_whole


class GatedOutput(NamedTuple):
    """Predictions of a gated network for a batch, with the cost of each image."""

    logits: Tensor
    """float32 (B, classes)."""
    kept: Tensor
    """Channels kept of each group, int64 (B, G); groups without a gate keep all."""
    compute: ComputeCost
    """Active parameters and MACs, those of the gates included, int64 (B,)."""
    gate_probs: tuple[Tensor, ...]
    """Probabilities of each gate, float32 in (0, 1), (B, its channels, or 1 for a branch)."""

    @classmethod
    def joined(cls, parts: Sequence[GatedOutput]) -> GatedOutput:
        """The outputs for several batches as one."""
        params = torch.cat([part.compute.params for part in parts])
        macs = torch.cat([part.compute.macs for part in parts])
        by_gate = zip(*(part.gate_probs for part in parts), strict=True)
        return cls(
            logits=torch.cat([part.logits for part in parts]),
            kept=torch.cat([part.kept for part in parts]),
            compute=ComputeCost(params, macs),
            gate_probs=tuple(torch.cat(of_gate) for of_gate in by_gate),
        )


class GatedCNN(nn.Module):
    """An ordinary network, trainable as a whole, with gates in it.

    | kind | what a gate decides | what that saves |
    |---|---|---|
    | `channels` | which channels of a group an image needs; the others are hidden from the layers that read them | no time: all are computed, though only those that stay are counted |
    | `branches` | the weight of a residual branch; if it is not above the threshold, the branch is not computed | time |

    A gate reads the input of the layer or branch it decides on. At first all gates are open.

    Args:
        elastic: the network whose groups get gates; they are inserted into a copy of it at full width.
        kind: `channels` or `branches`.
        reduction: a gate has a hidden layer of its input channels over this, 1 or more.
        threshold: probability above which a channel or branch stays, in (0, 1).

    Raises:
        ModelError: another kind; a threshold outside (0, 1); a reduction below 1; no branch that could be skipped; or a
            module of the name under which gates are put.

    Attributes:
        gated: indices of the groups that have gates.
    """  # noqa: E501 (a table)

    def __init__(
        self, elastic: ElasticCNN, kind: str = "channels", *, reduction: int = 4, threshold: float = 0.5
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ModelError(f"kind of gates is {kind!r}; allowed: {', '.join(KINDS)}")
        check_numbers(threshold=threshold)
        check_whole(reduction=reduction)
        if not 0 < threshold < 1:
            raise ModelError(f"threshold of gates is {threshold}; a number between 0 and 1 is needed")
        if reduction < 1:
            raise ModelError(f"reduction of gates is {reduction}; 1 or more is needed")
        self.kind = kind
        self.reduction = reduction
        self.threshold = threshold
        self.source = (elastic,)  # in a tuple, so that its weights do not become this network's
        stem, body = elastic.slice(elastic.full)
        assert isinstance(body, fx.GraphModule)
        insert = insert_channel_gates if kind == "channels" else insert_branch_gates
        channels = [group for group in elastic.groups if not group.is_resolution]  # which comes last
        self.gated = insert(body, channels, reduction, threshold)
        self.stem = stem
        self.body = body
        self.cost = Cost(elastic)
        if not any(parameter.is_meta for parameter in self.parameters()):
            self.to(elastic.widths.device)
        costs = [mlp_cost(gate) for gate in self.gates]
        params = torch.stack([cost.params for cost in costs]).sum()
        self.gates_cost = ComputeCost(params, torch.stack([cost.macs for cost in costs]).sum())

    def __repr__(self) -> str:
        """In one line."""
        size = sum(parameter.numel() for parameter in self.parameters()) / 1e6
        return f"{type(self).__name__}({self.kind}; {len(self.gated)} gates; {size:.2f} M parameters)"

    @property
    def gates(self) -> list[nn.Module]:
        """The gates, in the order of `gated`."""
        return [self.body.get_submodule(f"{ROOT}.gates.{index}") for index in self.gated]

    @property
    def n_channels(self) -> Tensor:
        """Number of channels of every group, and of rows of the resolution if it is chosen, int64 (G,)."""
        return torch.tensor([group.n_channels for group in self.source[0].groups])

    def soft(self, on: bool = True) -> GatedCNN:
        """Run everything, weighted by the gates, instead of only what is above the threshold.

        Args:
            on: False to end that.

        Returns:
            This network.
        """
        for module in self.modules():
            if isinstance(module, Gated):
                module.soft = on
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Classify normalised images (B, C, H, W): logits (B, classes)."""
        return self.run(images)[0]

    def run(self, images: Tensor, gate_probs: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Classify images, and return the probabilities of the gates too.

        Args:
            images: normalised, float (B, C, H, W).
            gate_probs: probabilities to use instead of the gates' own, each (B, its channels, or 1 for a branch).

        Returns:
            Logits (B, classes), and the probabilities of each gate, float32 in (0, 1).
        """
        features = self.stem(images)
        if gate_probs is None:
            logits, used = self.body(features)
        else:
            names = [f"{ROOT}.gates.{index}" for index in self.gated]
            overrides = dict(zip(names, gate_probs, strict=True))
            logits, used = _OverrideGates(self.body, overrides).run(features)
        return logits, tuple(used)

    def prepared(self) -> GatedCNN:
        """A copy that runs as fast as possible, for inference only: norms folded, weights in channels_last format."""
        network = copy.deepcopy(self).eval()
        for module in [module for module in network.modules() if isinstance(module, fx.GraphModule)]:
            fold(module)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @torch.no_grad()
    def decide(self, images: Tensor, gate_probs: Sequence[Tensor] | None = None) -> GatedOutput:
        """Classify images and count the cost of each; in eval mode.

        Args:
            images: as in `run`.
            gate_probs: as in `run`.
        """
        logits, used = self.run(images, gate_probs)
        kept = self.n_channels.expand(len(images), -1).clone()
        for index, of_gate in zip(self.gated, used, strict=True):
            n_open = (of_gate > self.threshold).sum(1).cpu()
            kept[:, index] = n_open if self.kind == "channels" else n_open * self.n_channels[index]
        network = self.cost.of_kept(kept) if self.kind == "channels" else self._cost_of_branches(kept > 0)
        total = ComputeCost(network.params + self.gates_cost.params, network.macs + self.gates_cost.macs)
        return GatedOutput(logits.float(), kept, total, used)

    def _cost_of_branches(self, runs: Tensor) -> ComputeCost:
        """Cost of images for which only the branches of some groups run, bool (B, G), without the gates."""
        params = self.cost.dense.params.repeat(len(runs))
        macs = self.cost.dense.macs.repeat(len(runs))
        for index in self.gated:
            branch = self.body.get_submodule(f"{ROOT}.branches.{index}")
            assert isinstance(branch, Branch)
            params -= sum(p.numel() for p in branch.parameters()) * ~runs[:, index]
            macs -= branch.macs * ~runs[:, index]
        return ComputeCost(params, macs)


class _OverrideGates(fx.Interpreter):
    """Runs a body with given probabilities in place of its gates' own."""

    def __init__(self, body: fx.GraphModule, overrides: dict[str, Tensor]) -> None:
        super().__init__(body)
        self.overrides = overrides

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The given probabilities of a gate; the result of any other layer."""
        return self.overrides[target] if target in self.overrides else super().call_module(target, args, kwargs)
