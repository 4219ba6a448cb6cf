"""Training an ordinary network from scratch, and measuring one."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from rlprune.data.image_set import ImageSet
from rlprune.training.batches import Batch
from rlprune.training.distillation import Teacher, distillation_loss, soft_labels
from rlprune.training.loop import Step, fit
from rlprune.training.settings import TrainingSettings
from rlprune.utils.progress import Log
from rlprune.utils.timing import Deadline


def pretrain(
    model: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    *,
    teacher: Teacher | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
    deadline: Deadline | None = None,
) -> None:
    """Train a network in place with cross-entropy, and from a teacher if there is one.

    Args:
        model: normalised images (B, C, H, W) -> logits (B, classes).
        data: its training images.
        settings: how.
        teacher: a network, or what `cache_teacher_logits` made of one.
        checkpoint: file written after every epoch; if it exists, training continues from it.
        log: called with the figures of every epoch.
        deadline: when it has to be done; steps that do not fit are left out, as `rlprune.training.loop.fit` says.
    """
    soft_of = None if teacher is None else soft_labels(teacher, settings)
    run = torch.compile(model) if settings.compile else model

    def make_step(generator: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            with settings.autocast():
                logits = run(batch.images)
            logits = logits.float()
            labels = batch.labels
            if soft_of is None:
                loss = F.cross_entropy(logits, labels)
            else:
                loss = distillation_loss(logits, labels, soft_of(batch), settings.temperature, settings.distillation)
            batch.backward(loss)
            return {"loss": loss.item(), "accuracy": (logits.argmax(1) == labels).float().mean().item()}

        return step

    fit(model, data, settings, make_step, checkpoint=checkpoint, log=log, label="pretrain", deadline=deadline)
