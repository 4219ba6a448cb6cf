"""Training an ordinary network from scratch, and measuring one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.data import ImageSet
from rlprune.distill import Teacher, distillation_loss, soft_labels
from rlprune.training import Batch, Log, Step, TrainingSettings, fit


def pretrain(
    model: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    *,
    teacher: Teacher | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> None:
    """Train a network in place with cross-entropy, and from a teacher if there is one.

    Args:
        model: normalised images (B, C, H, W) -> logits (B, classes).
        data: its training images.
        settings: how.
        teacher: a network, or what `distill.remember` made of one.
        checkpoint: file written after every epoch; if it exists, training goes on from it.
        log: called with the figures of every epoch.
    """
    soft_of = None if teacher is None else soft_labels(teacher, settings)

    def make_step(generator: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            with settings.autocast():
                logits = model(batch.images)
            logits, labels = logits.float(), batch.labels
            if soft_of is None:
                loss = F.cross_entropy(logits, labels)
            else:
                loss = distillation_loss(logits, labels, soft_of(batch), settings.temperature, settings.distillation)
            loss.backward()  # type: ignore[no-untyped-call]
            return {"loss": loss.item(), "accuracy": (logits.argmax(1) == labels).float().mean().item()}

        return step

    fit(model, data, settings, make_step, checkpoint=checkpoint, log=log, label="pretrain")


@torch.no_grad()
def accuracy(
    predict: Callable[[Tensor], Tensor], data: ImageSet, batch_size: int = 256, device: str | torch.device = "cpu"
) -> float:
    """Share of images whose largest logit is the right one, in [0, 1].

    Args:
        predict: normalised images (B, C, H, W) -> logits (B, classes), in eval mode.
        data: the images.
        batch_size: images at once.
        device: where `predict` wants its images.
    """
    batches = data.batches(batch_size)
    n_correct = sum(int((predict(images.to(device)).argmax(1).cpu() == labels).sum()) for images, labels in batches)
    return n_correct / len(data)
