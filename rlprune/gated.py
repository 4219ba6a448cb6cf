"""Networks that decide inside themselves, layer by layer, what an image needs: gates instead of a policy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from rlprune.cost import Compute, Cost, mlp_cost
from rlprune.data import ImageSet
from rlprune.distill import Teacher, distillation_loss, soft_labels
from rlprune.elastic import ElasticCNN
from rlprune.errors import ModelError, RLPruneError
from rlprune.folding import fold
from rlprune.gates import KINDS, ROOT, Branch, Gated, insert_branch_gates, insert_channel_gates, opened
from rlprune.training import Batch, Log, Step, TrainingSettings, fit


class Decided(NamedTuple):
    """What a gated network says of a batch, and what it ran for that."""

    logits: Tensor
    """float32 (B, classes)."""
    kept: Tensor
    """Channels that stayed of each group, int64 (B, G); those of groups without a gate all stay."""
    compute: Compute
    """Active parameters and multiply-adds, those of the gates included, int64 (B,)."""
    wanted: tuple[Tensor, ...]
    """What each gate said, float32 in (0, 1), (B, its channels, or 1 for a branch)."""

    @classmethod
    def joined(cls, parts: Sequence[Decided]) -> Decided:
        """Those of several batches as one."""
        logits, kept, compute, wanted = zip(*parts, strict=True)
        total = Compute(*map(torch.cat, zip(*compute, strict=True)))
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
        self.gates_cost = Compute(*(torch.stack(parts).sum() for parts in zip(*own, strict=True)))

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
            logits, said = _Told(self.body, told).run(features)
        return logits, tuple(said)

    def prepared(self) -> GatedCNN:
        """A copy that runs as fast as it goes: without norms, in the memory format that convolutions like best."""
        network = copy.deepcopy(self).eval()
        for module in [module for module in network.modules() if isinstance(module, fx.GraphModule)]:
            fold(module)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @torch.no_grad()
    def decide(self, images: Tensor, wanted: Sequence[Tensor] | None = None) -> Decided:
        """Classify normalised images, and count what that took; in eval mode. The arguments are those of `run`."""
        logits, said = self.run(images, wanted)
        kept = self.n_channels.expand(len(images), -1).clone()
        for index, of_gate in zip(self.gated, said, strict=True):
            passes = (of_gate > self.threshold).sum(1).cpu()
            kept[:, index] = passes if self.kind == "channels" else passes * self.n_channels[index]
        ran = self.cost.of_kept(kept) if self.kind == "channels" else self._of_branches(kept > 0)
        total = Compute(*(a + b for a, b in zip(ran, self.gates_cost, strict=True)))
        return Decided(logits.float(), kept, total, said)

    def _of_branches(self, runs: Tensor) -> Compute:
        """Cost of images for which the branches of some groups run, bool (B, G): what others hold is not touched."""
        params, macs = (dense.repeat(len(runs)) for dense in self.cost.dense)
        for index in self.gated:
            branch = self.body.get_submodule(f"{ROOT}.branches.{index}")
            assert isinstance(branch, Branch)
            params -= sum(p.numel() for p in branch.parameters()) * ~runs[:, index]
            macs -= branch.macs * ~runs[:, index]
        return Compute(params, macs)


class _Told(fx.Interpreter):
    """Runs a body whose gates are told what they say."""

    def __init__(self, body: fx.GraphModule, told: dict[str, Tensor]) -> None:
        super().__init__(body)
        self.told = told

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What a gate is told; of any other layer what it gives."""
        return self.told[target] if target in self.told else super().call_module(target, args, kwargs)


@dataclass(frozen=True)
class GateSettings(TrainingSettings):
    """How a network and its gates are trained, together."""

    learning_rate: float = 0.02
    """Peak learning rate."""
    density: float | None = None
    """Share of what is gated (channels, or branches) that is to stay, in (0, 1); if not given, half, or none in
    particular where there is a sparsity."""
    strength: float = 0.3
    """Weight, for every gate's value, of the squared distance from that share."""
    sparsity: float = 0.0
    """Weight of the L1 norm of what all gates want for an image; makes them close without a target too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.density is not None and not 0 < self.density < 1) or self.strength < 0 or self.sparsity < 0:
            raise RLPruneError(
                f"density={self.density}, strength={self.strength}, sparsity={self.sparsity}: allowed are a share "
                "between 0 and 1 or none, and 0 or more"
            )

    @property
    def target(self) -> float | None:
        """The density that is aimed at, if one is."""
        return 0.5 if self.density is None and not self.sparsity else self.density


def train_gates(
    network: GatedCNN,
    data: ImageSet,
    settings: GateSettings | None = None,
    *,
    teacher: Teacher | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> None:
    """Train a network and its gates in place, through what passes; what does not learns by its gate alone.

    Args:
        network: what is trained.
        data: its training images.
        settings: how; the defaults if None.
        teacher: a network, or what `distill.remember` made of one; the network without gates if None.
        checkpoint: file written after every epoch; if it exists, training goes on from it.
        log: called with the figures of every epoch: the loss, and the share of what is gated that stays.

    Raises:
        RLPruneError: logits remembered under other settings.
    """
    settings = GateSettings() if settings is None else settings
    original = network.source[0]
    soft_of = soft_labels(original.slice(original.full) if teacher is None else teacher, settings)

    def make_step(generator: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            with settings.autocast():
                logits, said = network.run(batch.images)
            soft = soft_of(batch)
            loss = distillation_loss(logits.float(), batch.labels, soft, settings.temperature, settings.distillation)
            wanted = torch.cat(said, 1)
            density = opened(wanted, network.threshold).mean()
            if settings.target is not None:
                loss = loss + settings.strength * wanted.shape[1] * (density - settings.target).square()
            loss = loss + settings.sparsity * wanted.sum(1).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return {"loss": loss.item(), "density": density.item()}

        return step

    fit(network, data, settings, make_step, checkpoint=checkpoint, log=log, label="gates")
