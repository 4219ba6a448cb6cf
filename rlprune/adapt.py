"""Training an elastic network so that its slices stay accurate: random profiles, the original network as teacher."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.data import ImageSet
from rlprune.elastic import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.layers import ElasticBatchNorm
from rlprune.training import Log, Step, TrainingSettings, fit, index_batches


@dataclass(frozen=True)
class AdaptSettings(TrainingSettings):
    """How an elastic network is fine-tuned."""

    learning_rate: float = 0.05
    """Peak learning rate."""
    n_random: int = 2
    """Random profiles per step, beside the largest and the smallest."""
    temperature: float = 2.0
    """Softens teacher and student alike."""
    distillation: float = 0.7
    """Weight of the teacher's soft labels against the true ones, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_random < 0 or self.temperature <= 0 or not 0 <= self.distillation <= 1:
            raise RLPruneError(
                f"n_random={self.n_random}, temperature={self.temperature}, distillation={self.distillation}: "
                "allowed are 0 or more, above 0, and [0, 1]"
            )


def adapt(
    elastic: ElasticCNN,
    data: ImageSet,
    settings: AdaptSettings | None = None,
    *,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> None:
    """Fine-tune an elastic network in place, so that any of its profiles predicts well.

    Every step takes the largest profile, the smallest and some random ones (the sandwich rule: Yu & Huang,
    "Universally Slimmable Networks", ICCV 2019), each learning from the labels and from the teacher's soft predictions
    (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015). Before the first step the norms of every
    level are calibrated. The smallest profile drops no branch: what is left then would be hardly a network.

    Args:
        elastic: what is trained.
        data: its training images; not those that are to train the policy.
        settings: how; the defaults if None.
        teacher: normalised images (B, C, H, W) -> logits (B, classes); the network as it is now if None.
        checkpoint: file written after every epoch; if it exists, training goes on from it.
        log: called with the figures of every epoch.
    """
    settings = AdaptSettings() if settings is None else settings
    if teacher is None:
        teacher = elastic.slice(elastic.full)
    teacher = copy.deepcopy(teacher).to(settings.device).eval()
    if settings.channels_last:
        teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    calibrate(elastic, data, settings)
    largest, smallest = elastic.full, elastic.uniform(elastic.narrowest)

    def make_step(generator: torch.Generator) -> Step:
        def step(images: Tensor, labels: Tensor) -> dict[str, float]:
            with torch.no_grad(), settings.autocast():
                soft = (teacher(images).float() / settings.temperature).log_softmax(1)
            profiles = [largest, smallest, *random_profiles(elastic, settings.n_random, generator)]
            losses = []
            for profile in profiles:
                with settings.autocast():
                    logits = elastic(images, profile)
                loss = distillation_loss(logits.float(), labels, soft, settings.temperature, settings.distillation)
                (loss / len(profiles)).backward()  # type: ignore[no-untyped-call]
                losses.append(loss.item())
            names = ("largest", "smallest")
            return {"loss": sum(losses) / len(losses)} | dict(zip(names, losses, strict=False))

        return step

    fit(elastic, data, settings, make_step, checkpoint=checkpoint, log=log, label="adapt")


def distillation_loss(logits: Tensor, labels: Tensor, soft: Tensor, temperature: float, weight: float) -> Tensor:
    """Cross-entropy with the labels, and divergence from a teacher; scalar.

    Args:
        logits: of the student, float32 (B, classes).
        labels: int64 (B,).
        soft: the teacher's log-probabilities at this temperature, (B, classes).
        temperature: divides the student's logits too; gradients shrink by its square, which is made good.
        weight: of the divergence, in [0, 1]; the cross-entropy has the rest.
    """
    hard = F.cross_entropy(logits, labels)
    divergence = F.kl_div((logits / temperature).log_softmax(1), soft, reduction="batchmean", log_target=True)
    return weight * temperature**2 * divergence + (1 - weight) * hard


def random_profiles(elastic: ElasticCNN, n: int, generator: torch.Generator) -> list[Tensor]:
    """Profiles that cover the whole range of cost: levels scatter around a centre that is drawn first, int64 (G,) each.

    Drawing every group alone would give hardly anything but middling costs.
    """
    profiles = []
    for _ in range(n):
        centre = torch.rand((), generator=generator) * (elastic.n_levels - 1)
        levels = (centre + torch.randn(elastic.n_groups, generator=generator)).round().long()
        profiles.append(levels.clamp_max(elastic.n_levels - 1).maximum(elastic.min_level.cpu()))
    return profiles


@torch.no_grad()
def calibrate(elastic: ElasticCNN, data: ImageSet, settings: TrainingSettings, n_batches: int = 8) -> None:
    """Give the norms of each level the statistics they meet under the uniform profile of that level.

    Args:
        elastic: its norms that have one set per level are changed in place.
        data: images to measure on.
        settings: batch size and device.
        n_batches: batches per level; the statistics are their mean.
    """
    elastic.to(settings.device).eval()
    norms = [layer for layer in elastic.elastic_layers().values() if isinstance(layer, ElasticBatchNorm)]
    switched = [layer for layer in norms if layer.consumed is not None]
    momenta = [layer.momentum for layer in switched]
    for layer in switched:
        layer.train()
    for level in range(elastic.narrowest, elastic.n_levels - 1):
        for batch, indices in enumerate(index_batches(torch.arange(len(data)), settings.batch_size)[:n_batches]):
            for layer in switched:
                layer.momentum = 1 / (batch + 1)
            elastic(data.normalised(indices).to(settings.device), elastic.uniform(level))
    for layer, momentum in zip(switched, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
