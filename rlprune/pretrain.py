"""Training an ordinary network from scratch, and measuring one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.data import ImageSet
from rlprune.training import Log, Step, TrainingSettings, fit


def pretrain(
    model: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    *,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> None:
    """Train a network in place with cross-entropy.

    Args:
        model: normalised images (B, C, H, W) -> logits (B, classes).
        data: its training images.
        settings: how.
        checkpoint: file written after every epoch; if it exists, training goes on from it.
        log: called with the figures of every epoch.
    """

    def make_step(generator: torch.Generator) -> Step:
        def step(images: Tensor, labels: Tensor) -> dict[str, float]:
            with settings.autocast():
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels)
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
