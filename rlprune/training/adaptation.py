"""Training an elastic network so that its slices stay accurate: random profiles, the original network as teacher."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.elastic.norms import ElasticBatchNorm
from rlprune.errors import RLPruneError
from rlprune.profiles.codebook import random_profiles
from rlprune.training.batches import Batch, index_batches
from rlprune.training.distillation import Teacher, distillation_loss, soft_labels
from rlprune.training.fake_quantisation import Rounded
from rlprune.training.loop import Log, Step, fit
from rlprune.training.settings import TrainingSettings


@dataclass(frozen=True)
class AdaptSettings(TrainingSettings):
    """How an elastic network is fine-tuned."""

    learning_rate: float = 0.05
    """Peak learning rate."""
    n_random: int = 2
    """Random profiles per step."""
    sandwich: bool = True
    """Train the largest and the smallest profile in every step, beside the random ones."""
    int8: bool = False
    """Round weights and features as int8 does, while training, for a network that is to be exported with it. Everything
    is then computed in float32, since bfloat16 would round to other numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.int8 and self.bf16:
            raise RLPruneError("int8=True and bf16=True round to different numbers; give one of both")
        if self.n_random < 0 or not (self.n_random or self.sandwich):
            raise RLPruneError(
                f"n_random={self.n_random}, sandwich={self.sandwich}: a step needs a profile, so n_random must be "
                "0 or more, and 1 or more without the sandwich"
            )

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for forward passes."""
        return nullcontext() if self.int8 else super().autocast()


@dataclass(frozen=True)
class SpecialiseSettings(AdaptSettings):
    """How an elastic network is fine-tuned to the profiles of a codebook."""

    shares: tuple[float, ...] = ()
    """How often each profile is drawn, cheapest first, of any sum; equally if none are given."""
    separate: bool = False
    """Give each profile weights of its own first, not norms alone; the stem, which they still share, is then fixed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shares and not (min(self.shares) >= 0 and 0 < sum(self.shares) < math.inf):
            raise RLPruneError(f"shares={self.shares}: allowed are numbers of 0 or more, not all of them 0")


def adapt(
    elastic: ElasticModule,
    data: ImageSet,
    settings: AdaptSettings | None = None,
    *,
    teacher: Teacher | None = None,
    codebook: Tensor | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> None:
    """Fine-tune an elastic network in place, so that any of its profiles predicts well, or those of a codebook.

    Every step takes the largest profile, the smallest and some random ones (the sandwich rule: Yu & Huang,
    "Universally Slimmable Networks", ICCV 2019), each learning from the labels and from the teacher's soft predictions
    (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015). Before the first step the norms of every
    level are calibrated. The smallest profile drops no branch: what is left then would be hardly a network.

    Args:
        elastic: what is trained.
        data: its training images; not those that are to train the policy.
        settings: how; the defaults if None. Those of `SpecialiseSettings` say how often each profile of a codebook is
            drawn; else all are drawn equally often.
        teacher: normalised images (B, C, H, W) -> logits (B, classes), or what `cache_teacher_logits` made of one;
            the network as it is now if None.
        codebook: int64 (K, G); random profiles are drawn from it, if given, and the smallest is its first.
        checkpoint: file written after every epoch; if it exists, training goes on from it.
        log: called with the figures of every epoch.

    Raises:
        LevelsError: the codebook is not of this network.
        RLPruneError: other shares than one per profile, or logits remembered under other settings.
    """
    settings = AdaptSettings() if settings is None else settings
    soft_of = soft_labels(elastic.slice(elastic.full) if teacher is None else teacher, settings)
    smallest = elastic.uniform(elastic.narrowest) if codebook is None else elastic.check_codebook(codebook)[0]
    sandwich = [elastic.full, smallest] if settings.sandwich else []
    n_profiles = 0 if codebook is None else len(codebook)
    shares = settings.shares if isinstance(settings, SpecialiseSettings) else ()
    if shares and len(shares) != n_profiles:
        raise RLPruneError(f"shares={shares}: the codebook has {n_profiles} profiles; give one for each, or none")
    weights = torch.tensor(shares or (1,) * n_profiles, dtype=torch.float32)
    if not elastic.own_bodies:  # whose norms know but one profile each
        calibrate(elastic, data, settings)
        if isinstance(settings, SpecialiseSettings) and settings.separate:
            elastic.separate()

    def rounded(images: Tensor, profile: Tensor) -> Tensor:
        features = elastic.stem(images)  # which stays in floating point
        with Rounded():
            return elastic.run_body(features, profile)

    run = rounded if settings.int8 else elastic

    def draw(generator: torch.Generator) -> list[Tensor]:
        if codebook is None or not settings.n_random:
            return random_profiles(elastic, settings.n_random, generator)
        return [codebook[i] for i in torch.multinomial(weights, settings.n_random, True, generator=generator)]

    def make_step(generator: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            soft, labels = soft_of(batch), batch.labels
            profiles = [*sandwich, *draw(generator)]
            losses = []
            for profile in profiles:
                with settings.autocast():
                    logits = run(batch.images, profile)
                loss = distillation_loss(logits.float(), labels, soft, settings.temperature, settings.distillation)
                (loss / len(profiles)).backward()  # type: ignore[no-untyped-call]
                losses.append(loss.item())
            names = ("largest", "smallest") if sandwich else ()
            return {"loss": sum(losses) / len(losses)} | dict(zip(names, losses, strict=False))

        return step

    fit(elastic, data, settings, make_step, checkpoint=checkpoint, log=log, label="adapt")


@torch.no_grad()
def calibrate(elastic: ElasticModule, data: ImageSet, settings: TrainingSettings, n_batches: int = 8) -> None:
    """Give norms with several sets the statistics they meet: under the uniform profiles, or those of the codebook.

    Args:
        elastic: its norms that have several sets are changed in place.
        data: images to measure on.
        settings: batch size and device.
        n_batches: batches per profile; the statistics are their mean.
    """
    elastic.to(settings.device).eval()
    norms = [layer for layer in elastic.elastic_layers().values() if isinstance(layer, ElasticBatchNorm)]
    switched = [layer for layer in norms if len(layer.weight) > 1]
    momenta = [layer.momentum for layer in switched]
    for layer in switched:
        layer.train()
    levels = range(elastic.narrowest, elastic.n_levels - 1)
    profiles = [elastic.uniform(level) for level in levels] if elastic.codebook is None else list(elastic.codebook)
    for profile in profiles:
        for batch, indices in enumerate(index_batches(torch.arange(len(data)), settings.batch_size)[:n_batches]):
            for layer in switched:
                layer.momentum = 1 / (batch + 1)
            elastic(data.normalised(indices).to(settings.device), profile)
    for layer, momentum in zip(switched, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
