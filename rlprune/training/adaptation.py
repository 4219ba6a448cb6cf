"""Training an elastic network so that its slices stay accurate: random profiles, the original network as teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.profiles.codebook import random_profiles
from rlprune.training.batches import Batch, index_batches
from rlprune.training.distillation import Teacher, distillation_loss, soft_labels
from rlprune.training.fake_quantisation import Rounded
from rlprune.training.loop import Step, check_checkpoint_room, fit
from rlprune.training.parallel.division import Division
from rlprune.training.settings import NO_COMPILING, TrainingSettings
from rlprune.utils.progress import Log
from rlprune.utils.settings import (
    AtMost,
    LearningRate,
    Must,
    NonNegativeFloat,
    NonNegativeInt,
    as_tuple,
    settings_dataclass,
)
from rlprune.utils.timing import Deadline

DrawShares = Annotated[
    tuple[NonNegativeFloat, ...],
    as_tuple,
    Must(lambda shares: not shares or max(shares) >= 1e-6, "numbers of 0 or more, not all of them 0, or none"),
]


@settings_dataclass
class AdaptSettings(TrainingSettings):
    """How an elastic network is fine-tuned."""

    learning_rate: LearningRate = 0.05
    """Peak learning rate."""
    n_random: Annotated[NonNegativeInt, AtMost(1000)] = 2
    """Random profiles per step."""
    sandwich: bool = True
    """Train the largest and the smallest profile in every step, beside the random ones."""
    int8: bool = False
    """Round weights and features as int8 does, while training, for a network that is to be exported with it. Everything
    is then computed in float32, since bfloat16 would round to other numbers."""

    def _conflicts(self) -> Iterator[str]:
        yield from super()._conflicts()
        if self.int8 and (self.bf16 or self.fp16):
            yield f"int8=True and {'bf16' if self.bf16 else 'fp16'}=True round to different numbers; give only one"
        if self.compile:
            yield NO_COMPILING
        if not self.n_random and not self.sandwich:
            yield "n_random=0, sandwich=False: a step needs a profile; give an n_random of 1 or more, or the sandwich"

    @property
    def computes_in_bf16(self) -> bool:
        """As for all trainings, but never where weights and features are rounded as int8 does."""
        return not self.int8 and super().computes_in_bf16


@settings_dataclass
class SpecialiseSettings(AdaptSettings):
    """How an elastic network is fine-tuned to the profiles of a codebook."""

    shares: DrawShares = ()
    """How often each profile is drawn, cheapest first, of any sum; equally if none are given."""
    separate: bool = False
    """Give each profile weights of its own first, not norms alone; the stem, which they still share, is then fixed."""


def adapt(
    elastic: ElasticModule,
    data: ImageSet,
    settings: AdaptSettings | None = None,
    *,
    teacher: Teacher | None = None,
    codebook: Tensor | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
    deadline: Deadline | None = None,
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
        checkpoint: file written after every epoch; if it exists, training continues from it.
        log: called with the figures of every epoch.
        deadline: when it has to be done; steps that do not fit are left out, as `rlprune.training.loop.fit` says.

    Raises:
        LevelsError: the codebook is not of this network.
        RLPruneError: other shares than one per profile, or a teacher's logits cached under other settings.
        WriteError: there is no room for the checkpoint.
    """
    settings = AdaptSettings() if settings is None else settings
    check_checkpoint_room(checkpoint, elastic, settings)
    soft_of = soft_labels(elastic.slice(elastic.full) if teacher is None else teacher, settings)
    sampler = _ProfileSampler(elastic, settings, codebook)
    if not elastic.own_bodies:  # whose norms know but one profile each
        calibrate(elastic, data, settings)
        if isinstance(settings, SpecialiseSettings) and settings.separate:
            elastic.separate()
    run = _rounded(elastic) if settings.int8 else elastic

    def make_step(generator: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            soft = soft_of(batch)
            profiles = sampler.draw(generator)
            losses = []
            for profile in profiles:
                with settings.autocast():
                    logits = run(batch.images, profile)
                loss = distillation_loss(
                    logits.float(), batch.labels, soft, settings.temperature, settings.distillation
                )
                batch.backward(loss / len(profiles))
                losses.append(loss.item())
            return {"loss": sum(losses) / len(losses)} | dict(zip(sampler.names, losses, strict=False))

        return step

    fit(elastic, data, settings, make_step, checkpoint=checkpoint, log=log, label="adapt", deadline=deadline)


class _ProfileSampler:
    """Which profiles a step trains: the largest and the smallest, and random ones.

    Args:
        elastic: the network.
        settings: how many; those of `SpecialiseSettings` say how often each of a codebook.
        codebook: int64 (K, G); what random ones are drawn from; any profiles if None.

    Raises:
        LevelsError: the codebook is not of this network.
        RLPruneError: other shares than one per profile.

    Attributes:
        names: of the first profiles of every step; those after them have none.
    """

    def __init__(self, elastic: ElasticModule, settings: AdaptSettings, codebook: Tensor | None) -> None:
        self.elastic = elastic
        self.codebook = codebook
        self.n_random = settings.n_random
        smallest = elastic.uniform(elastic.narrowest) if codebook is None else elastic.check_codebook(codebook)[0]
        self.sandwich = [elastic.full, smallest] if settings.sandwich else []
        self.names = ("largest", "smallest") if settings.sandwich else ()
        self.weights = _draw_weights(settings, 0 if codebook is None else len(codebook))

    def draw(self, generator: torch.Generator) -> list[Tensor]:
        """The profiles of a step, each int64 (G,)."""
        return [*self.sandwich, *self._random(generator)]

    def _random(self, generator: torch.Generator) -> list[Tensor]:
        if self.codebook is None or not self.n_random:
            return random_profiles(self.elastic, self.n_random, generator)
        drawn = torch.multinomial(self.weights, self.n_random, replacement=True, generator=generator)
        return [self.codebook[index] for index in drawn]


def _draw_weights(settings: AdaptSettings, n_profiles: int) -> Tensor:
    """How often each profile of a codebook is drawn, float32 (n_profiles,), of any sum.

    Raises:
        RLPruneError: other shares than one per profile.
    """
    shares = settings.shares if isinstance(settings, SpecialiseSettings) else ()
    if shares and len(shares) != n_profiles:
        raise RLPruneError(f"shares={shares}: the codebook has {n_profiles} profiles; give one for each, or none")
    return torch.tensor(shares or (1,) * n_profiles, dtype=torch.float32)


def _rounded(elastic: ElasticModule) -> Callable[[Tensor, Tensor], Tensor]:
    """The network, which computes with rounded numbers."""

    def run(images: Tensor, profile: Tensor) -> Tensor:
        with Rounded():
            logits: Tensor = elastic(images, profile)
            return logits

    return run


@torch.no_grad()
def calibrate(elastic: ElasticModule, data: ImageSet, settings: TrainingSettings, n_batches: int = 8) -> None:
    """Give norms with several sets the statistics they meet: under the uniform profiles, or those of the codebook.

    Args:
        elastic: its norms that have several sets are changed in place.
        data: images to measure on.
        settings: batch size and device.
        n_batches: batches per profile; the statistics are their mean. Of each batch, every process runs its part.
    """
    elastic.to(settings.device).eval()
    norms = [layer for layer in elastic.elastic_layers().values() if isinstance(layer, ElasticBatchNorm)]
    switched = [layer for layer in norms if len(layer.weight) > 1]
    momenta = [layer.momentum for layer in switched]
    for layer in switched:
        layer.train()
    levels = range(elastic.narrowest, elastic.n_levels - 1)
    profiles = [elastic.uniform(level) for level in levels] if elastic.codebook is None else list(elastic.codebook)
    batches = index_batches(torch.arange(len(data)), settings.batch_size)[:n_batches]
    for profile in profiles:
        for batch, pixels in enumerate(data.pixels_at(batches)):
            for layer in switched:
                layer.momentum = 1 / (batch + 1)
            (part,) = Division.of(len(pixels)).pieces
            with part.together():
                elastic(data.normalise(pixels[part.rows]).to(settings.device), profile)
    for layer, momentum in zip(switched, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
