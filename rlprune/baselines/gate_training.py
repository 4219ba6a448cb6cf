"""Trains a network together with its gates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch

from rlprune.baselines.gate_layers import straight_through
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.data.image_set import ImageSet
from rlprune.training.batches import Batch
from rlprune.training.distillation import Teacher, distillation_loss, soft_labels
from rlprune.training.loop import Step, fit
from rlprune.training.parallel.sums import average
from rlprune.training.settings import NO_COMPILING, TrainingSettings
from rlprune.utils.progress import Log
from rlprune.utils.settings import AtMost, InnerShare, LearningRate, NonNegativeFloat, settings_dataclass


@settings_dataclass
class GateSettings(TrainingSettings):
    """How a network and its gates are trained, together."""

    learning_rate: LearningRate = 0.02
    """Peak learning rate."""
    density: InnerShare | None = None
    """Share of what is gated (channels, or branches) that is to stay, in (0, 1); if not given, half, or none in
    particular where there is a sparsity."""
    strength: Annotated[NonNegativeFloat, AtMost(1000)] = 0.3
    """Weight, for every gate's value, of the squared distance from that share."""
    sparsity: Annotated[NonNegativeFloat, AtMost(1000)] = 0.0
    """Weight of the L1 norm of what all gates want for an image; makes them close without a target too."""

    def _conflicts(self) -> Iterator[str]:
        yield from super()._conflicts()
        if self.compile:
            yield NO_COMPILING

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
    """Train a network and its gates in place; closed channels and branches get gradients only through their gates.

    Args:
        network: the network, changed in place.
        data: its training images.
        settings: the settings; defaults if None.
        teacher: a network, or logits that `cache_teacher_logits` cached; the network without gates if None.
        checkpoint: file written after every epoch; if it exists, training resumes from it.
        log: called with the figures of every epoch: the loss, and the share of gated channels or branches that stay.

    Raises:
        RLPruneError: the teacher's logits were cached under other settings.
    """
    settings = GateSettings() if settings is None else settings
    original = network.source[0]
    soft_of = soft_labels(original.slice(original.full) if teacher is None else teacher, settings)

    def make_step(generator: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            with settings.autocast():
                logits, of_gates = network.run(batch.images)
            soft = soft_of(batch)
            loss = distillation_loss(logits.float(), batch.labels, soft, settings.temperature, settings.distillation)
            gate_probs = torch.cat(of_gates, 1)
            density = average(straight_through(gate_probs, network.threshold).mean(), len(batch.images))
            if settings.target is not None:
                loss = loss + settings.strength * gate_probs.shape[1] * (density - settings.target).square()
            loss = loss + settings.sparsity * gate_probs.sum(1).mean()
            batch.backward(loss)
            return {"loss": loss.item(), "density": density.item()}

        return step

    fit(network, data, settings, make_step, checkpoint=checkpoint, log=log, label="gates")
