"""Networks that decide inside themselves, layer by layer, what an image needs: gates instead of a policy."""

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


class GatedOutput(NamedTuple):
    """What a gated network says of a batch, and what it ran for that."""

    logits: Tensor
    """float32 (B, classes)."""
    kept: Tensor
    """Channels that stayed of each group, int64 (B, G); those of groups without a gate all stay."""
    compute: ComputeCost
    """Active parameters and multiply-adds, those of the gates included, int64 (B,)."""
    wanted: tuple[Tensor, ...]
    """What each gate said, float32 in (0, 1), (B, its channels, or 1 for a branch)."""

    @classmethod
    def joined(cls, parts: Sequence[GatedOutput]) -> GatedOutput:
        """Those of several batches as one."""
        logits, kept, compute, wanted = zip(*parts, strict=True)
        total = ComputeCost(*map(torch.cat, zip(*compute, strict=True)))
        return cls(torch.cat(logits), torch.cat(kept), total, tuple(map(torch.cat, zip(*wanted, strict=True))))


class GatedCNN(nn.Module):
    """An ordinary network, trainable as a whole, with gates in it.

    | kind | what a gate decides | what that saves |
    |---|---|---|
    | `channels` | which channels of a group an image needs; the others are hidden from what would read them | nothing on the clock: all are computed, though only those that stay are counted |
    | `branches` | how much a residual branch is worth to an image; if that does not pass the threshold, it is not computed | time |

    Gates read the input of what they decide about. As they begin, all are open.

    Args:
        elastic: whose groups they are, and whose full width, on copies of the weights, they are put into.
        kind: one of the above.
        reduction: a gate has a hidden layer of its input's channels over this.
        threshold: what a gate has to pass, in (0, 1).

    Raises:
        ModelError: another kind; a threshold or a reduction out of range; or no branch that could be skipped.

    Attributes:
        gated: indices of the groups that have gates.
    """  # noqa: E501 (a table)

    def __init__(
        self, elastic: ElasticCNN, kind: str = "channels", *, reduction: int = 4, threshold: float = 0.5
    ) -> None:
        super().__init__()
        if kind not in KINDS or not 0 < threshold < 1 or reduction < 1:
            raise ModelError(
                f"kind={kind!r}, threshold={threshold}, reduction={reduction}: allowed are {', '.join(KINDS)}; a "
                "number between 0 and 1; and 1 or more"
            )
        self.kind, self.reduction, self.threshold = kind, reduction, threshold
        self.source = (elastic,)  # in a tuple, so that its weights are none of this network's
        stem, body = elastic.slice(elastic.full)
        assert isinstance(body, fx.GraphModule)
        insert = insert_channel_gates if kind == "channels" else insert_branch_gates
        self.gated = insert(body, elastic.groups, reduction, threshold)
        self.stem, self.body = stem, body
        self.cost = Cost(elastic)
        self.to(elastic.widths.device)
        own = [mlp_cost(gate) for gate in self.gates]
        self.gates_cost = ComputeCost(*(torch.stack(parts).sum() for parts in zip(*own, strict=True)))

    @property
    def gates(self) -> list[nn.Module]:
        """Those of `gated`, in order."""
        return [self.body.get_submodule(f"{ROOT}.gates.{index}") for index in self.gated]

    @property
    def n_channels(self) -> Tensor:
        """Of every group, int64 (G,)."""
        return torch.tensor([group.n_channels for group in self.source[0].groups])

    def soft(self, on: bool = True) -> GatedCNN:
        """Let everything run, weighted by the gates, instead of what passes; or end that. Returns itself."""
        for module in self.modules():
            if isinstance(module, Gated):
                module.soft = on
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Classify normalised images (B, C, H, W): logits (B, classes)."""
        return self.run(images)[0]

    def run(self, images: Tensor, wanted: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same, and what gates want.

        Args:
            images: normalised, float (B, C, H, W).
            wanted: what gates are to have said instead of their own, each (B, its channels, or 1 for a branch).

        Returns:
            Logits (B, classes), and what each of the gates wants, float32 in (0, 1).
        """
        features = self.stem(images)
        if wanted is None:
            logits, said = self.body(features)
        else:
            told = {f"{ROOT}.gates.{index}": of_gate for index, of_gate in zip(self.gated, wanted, strict=True)}
            logits, said = _OverrideGates(self.body, told).run(features)
        return logits, tuple(said)

    def prepared(self) -> GatedCNN:
        """A copy that runs as fast as it goes: without norms, in the memory format that convolutions like best."""
        network = copy.deepcopy(self).eval()
        for module in [module for module in network.modules() if isinstance(module, fx.GraphModule)]:
            fold(module)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @torch.no_grad()
    def decide(self, images: Tensor, wanted: Sequence[Tensor] | None = None) -> GatedOutput:
        """Classify normalised images, and count what that took; in eval mode. The arguments are those of `run`."""
        logits, said = self.run(images, wanted)
        kept = self.n_channels.expand(len(images), -1).clone()
        for index, of_gate in zip(self.gated, said, strict=True):
            passes = (of_gate > self.threshold).sum(1).cpu()
            kept[:, index] = passes if self.kind == "channels" else passes * self.n_channels[index]
        ran = self.cost.of_kept(kept) if self.kind == "channels" else self._of_branches(kept > 0)
        total = ComputeCost(*(a + b for a, b in zip(ran, self.gates_cost, strict=True)))
        return GatedOutput(logits.float(), kept, total, said)

    def _of_branches(self, runs: Tensor) -> ComputeCost:
        """Cost of images for which the branches of some groups run, bool (B, G): what others hold is not touched."""
        params, macs = (dense.repeat(len(runs)) for dense in self.cost.dense)
        for index in self.gated:
            branch = self.body.get_submodule(f"{ROOT}.branches.{index}")
            assert isinstance(branch, Branch)
            params -= sum(p.numel() for p in branch.parameters()) * ~runs[:, index]
            macs -= branch.macs * ~runs[:, index]
        return ComputeCost(params, macs)


class _OverrideGates(fx.Interpreter):
    """Runs a body whose gates are told what they say."""

    def __init__(self, body: fx.GraphModule, told: dict[str, Tensor]) -> None:
        super().__init__(body)
        self.told = told

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What a gate is told; of any other layer what it gives."""
        return self.told[target] if target in self.told else super().call_module(target, args, kwargs)
