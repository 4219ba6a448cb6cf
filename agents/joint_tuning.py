"""Joint tuning: the network is trained under the profiles that a policy chooses, image by image, pass by pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.policies.passes import CostBreakdown, run_policy
from rlprune.policies.policy import Policy, check_fit
from rlprune.profiles.cost import Cost
from rlprune.training.batches import Batch
from rlprune.training.distillation import Teacher, distillation_loss, soft_labels
from rlprune.training.loop import Step, fit
from rlprune.training.settings import TrainingSettings
from rlprune.utils.progress import Log
from rlprune.utils.settings import AtMost, BatchSize, Epochs, LearningRate, NonNegativeInt, settings_dataclass


@settings_dataclass
class TuneSettings(TrainingSettings):
    """How network and policy are tuned to each other."""

    epochs: Epochs = 10
    """Passes over the training images in each round."""
    batch_size: BatchSize = 256
    """Images per step; the policy divides them among the profiles."""
    learning_rate: LearningRate = 0.02
    """Peak learning rate."""
    rounds: Annotated[NonNegativeInt, AtMost(100)] = 1
    """So often, at most, the network is trained under the policy, and the policy learnt again; 0: a policy alone."""
    floor: Annotated[int, Field(ge=2)] = 32
    """Every profile is trained on at least so many images of a batch: random ones fill up those that chose it."""

    def _conflicts(self) -> Iterator[str]:
        if self.floor > self.batch_size:
            yield f"floor={self.floor}, batch_size={self.batch_size}: give a floor of 2 to batch_size"


def tune(
    elastic: ElasticModule,
    policy: Policy,
    data: ImageSet,
    settings: TuneSettings | None = None,
    *,
    teacher: Teacher | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> None:
    """Train a network in place under a policy's decisions; the policy stays as it is.

    Each image runs through the profiles that the policy chooses for it, pass after pass, by the logits so far. Images
    with the same profile run through its slice together, so a step costs what the policy's decisions cost. Every pass
    learns from the labels and from the teacher, weighted by the images that it ran on. (BlockDrop, Wu et al., CVPR
    2018, found that most of what a learnt policy is worth comes from such tuning.)

    Args:
        elastic: the network that is trained.
        policy: whose decisions count; a policy of this network. One for a range of penalties decides at its middle.
        data: training images of the network, not those of the policy.
        settings: how it is trained; the defaults if None. `rounds` is up to the caller.
        teacher: a network, or its logits from `cache_teacher_logits`; the widest profile as it is now if None.
        checkpoint: file written after every epoch; if it exists, training continues from it.
        log: called with the figures of every epoch: the loss, and the share of the images that ran each profile.

    Raises:
        BundleError: the policy is of another network.
        RLPruneError: the teacher's logits were cached under other settings.
    """
    settings = TuneSettings() if settings is None else settings
    check_fit(elastic, policy, tuple(data.classes))
    policy = copy.deepcopy(policy).eval().at()
    prices = CostBreakdown.of(Cost(elastic), policy)
    soft_of = soft_labels(elastic.slice(elastic.full) if teacher is None else teacher, settings)

    def make_step(generator: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            n_images = len(batch.images)
            soft = soft_of(batch)
            with settings.autocast():
                decisions = decide(elastic.eval(), policy, batch.images, prices)
            elastic.train().stem.eval()  # else its statistics would follow whichever images came last
            figures = {"loss": 0.0}
            for index, profile in enumerate(policy.codebook):
                chose = (decisions == index).any(1)
                images = _at_least(settings.floor, chose, generator).to(batch.images.device)
                with settings.autocast():
                    logits = elastic(batch.images[images], profile)
                loss = distillation_loss(
                    logits.float(), batch.labels[images], soft[images], settings.temperature, settings.distillation
                )
                loss = loss * len(images) / n_images
                loss.backward()  # type: ignore[no-untyped-call]
                figures["loss"] += loss.item()
                figures[f"profile_{index}"] = chose.float().mean().item()
            return figures

        return step

    fit(elastic, data, settings, make_step, checkpoint=checkpoint, log=log, label="tune")


@torch.no_grad()
def decide(elastic: ElasticModule, policy: Policy, images: Tensor, prices: CostBreakdown) -> Tensor:
    """Which profiles a policy runs images through.

    Args:
        elastic: the network, in eval mode.
        policy: of this network, on the CPU.
        images: normalised, float (B, C, H, W), on the network's device.
        prices: of the network and the policy.

    Returns:
        Index into the policy's codebook for every pass, int64 (B, max_passes); -1 where there was none.
    """
    features = elastic.stem(images)

    def run(bucket: Tensor, profile: int) -> Tensor:
        return elastic.run_body(features[bucket], policy.codebook[profile]).float().cpu()

    return run_policy(policy, policy.observer.features(features), prices, run).profiles


def _at_least(n: int, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """The chosen images (B,), filled up with random others to n: indices, int64."""
    others = (~chosen).nonzero().flatten()
    missing = max(0, n - int(chosen.sum()))
    return torch.cat([chosen.nonzero().flatten(), others[torch.randperm(len(others), generator=generator)[:missing]]])
