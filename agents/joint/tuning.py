"""Joint tuning: the network is trained under the profiles that a policy chooses, image by image, pass by pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rlprune.agents.joint.routes import Routes, route, shares_going_on
from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.policies.passes import CostBreakdown
from rlprune.policies.policy import Policy, check_fit
from rlprune.profiles.cost import Cost
from rlprune.training.batches import Batch
from rlprune.training.distillation import Teacher, distillation_loss, soft_labels
from rlprune.training.loop import Step, fit
from rlprune.training.parallel.division import Division
from rlprune.training.parallel.group import current
from rlprune.training.settings import NO_COMPILING, TrainingSettings
from rlprune.utils.progress import Log
from rlprune.utils.settings import AtMost, BatchSize, Epochs, LearningRate, NonNegativeInt, Share, settings_dataclass


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
    early_weight: Share = 1.0
    """Weight of what a pass makes of an image that goes on to another; 1 weighs all passes alike. Below 1, the first
    pass is asked less to be right about what another will answer."""

    def _conflicts(self) -> Iterator[str]:
        yield from super()._conflicts()
        if self.compile:
            yield NO_COMPILING
        if self.accumulate > 1:
            yield f"accumulate={self.accumulate}: the policy divides whole batches; give a smaller batch_size instead"
        if self.floor > self.batch_size:
            yield f"floor={self.floor}, batch_size={self.batch_size}: give a floor of 2 to batch_size"


def tune(
    elastic: ElasticModule,
    policy: Policy,
    data: ImageSet,
    settings: TuneSettings | None = None,
    *,
    held_out: ImageSet | None = None,
    teacher: Teacher | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> None:
    """Train a network in place under a policy's decisions; the policy stays as it is.

    Each image runs through the profiles that the policy chooses for it, pass after pass, by the logits so far: what
    runs late becomes a specialist for the images that come that far. (BlockDrop, Wu et al., CVPR 2018, found that most
    of what a learnt policy is worth comes from such tuning; L2W-DEN, Han et al., ECCV 2022, trains late exits so.)
    Images with the same profile run through its slice together, so a step costs what the policy's decisions cost. Every
    pass learns from the labels and from the teacher, weighted by the images that it ran on. Where a policy combines
    logits, what learns is the combined prediction, so that a later pass makes good what is missing in the earlier ones
    (BoostNet, Yu et al., AAAI 2023).

    Args:
        elastic: the network that is trained.
        policy: whose decisions count; a policy of this network. One for a range of penalties decides at its middle.
        data: training images of the network, not those of the policy.
        settings: how it is trained; the defaults if None. `rounds` is up to the caller.
        held_out: images that the network was not trained on, such as the policy's. As many of each batch as of these
            go on, those that the policy is keenest on: of its training images, a network is too sure. If
            None, or where a policy chooses levels or ratios, it decides as it does.
        teacher: a network, or its logits from `cache_teacher_logits`; the widest profile as it is now if None.
        checkpoint: file written after every epoch; if it exists, training continues from it.
        log: called with the figures of every epoch: the loss, and the share of the images that ran each profile.

    Raises:
        BundleError: the policy is of another network.
        RLPruneError: the teacher's logits were cached under other settings, or there are more processes than `floor`
            has images.
    """
    settings = TuneSettings() if settings is None else settings
    check_fit(elastic, policy, tuple(data.classes))
    if settings.floor < (size := current().size):
        raise RLPruneError(f"floor={settings.floor}: give at least {size}, an image for each of {size} processes")
    policy = copy.deepcopy(policy).eval().at()
    prices = CostBreakdown.of(Cost(elastic), policy)
    elastic.to(settings.device).eval()
    shares = None if held_out is None else shares_going_on(elastic, policy, held_out, prices)
    soft_of = soft_labels(elastic.slice(elastic.full) if teacher is None else teacher, settings)

    def make_step(generator: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            n_images = len(batch.images)
            group = Division.of(batch.n_step).pieces[0].group
            with settings.autocast():
                own = route(elastic.eval(), policy, batch.images, prices, shares, group)
            routes = Routes(group.gather(own.profiles), group.gather(own.beliefs))
            soft, images, labels = map(group.gather, (soft_of(batch), batch.images, batch.labels))
            elastic.train().stem.eval()  # else its statistics would follow whichever images came last
            figures = {"loss": 0.0}
            for index, profile in enumerate(policy.codebook):
                students, n_chosen = _students(routes, index, settings, generator)
                (part,) = Division.of(len(students.images)).pieces
                students = students.some(part.own)  # of all students, as many for each process
                here = students.images.to(images.device)
                with settings.autocast(), part.together():
                    logits = elastic(images[here], profile)
                before = routes.before(students.images, students.passes).to(logits.device)
                believed = policy.observer.believe(before, logits.float(), students.passes.to(logits.device))
                loss = distillation_loss(
                    believed,
                    labels[here],
                    soft[here],
                    settings.temperature,
                    settings.distillation,
                    students.weights.to(logits.device),
                )
                loss = loss * len(here) / n_images
                batch.backward(loss)
                figures["loss"] += loss.item()
                figures[f"profile_{index}"] = n_chosen / batch.n_step
            return figures

        return step

    fit(elastic, data, settings, make_step, checkpoint=checkpoint, log=log, label="tune")


@dataclass(frozen=True, eq=False)
class _Students:
    """The images of a batch that train a profile, n of them.

    Attributes:
        images: their indices, int64 (n,); first those that chose it.
        passes: how many passes each had before, int64 (n,).
        weights: of each in the loss, float32 (n,).
    """

    images: Tensor
    passes: Tensor
    weights: Tensor

    def some(self, which: slice) -> _Students:
        """Some of them."""
        return _Students(self.images[which], self.passes[which], self.weights[which])


def _students(
    routes: Routes, profile: int, settings: TuneSettings, generator: torch.Generator
) -> tuple[_Students, int]:
    """Who trains a profile: the images that chose it, and others, which run it as most of those do; and how many chose.

    Those others come first or, where most had a pass before, one pass after their last.
    """
    ran = routes.profiles == profile
    chose = ran.any(1)
    images = _at_least(settings.floor, chose, generator)
    n_chosen = int(chose.sum())
    own = ran.int().argmax(1)[images[:n_chosen]]
    most = routes.profiles.shape[1] - 1
    if n_chosen and (own > 0).double().mean() > 0.5:
        filled = routes.passes[images[n_chosen:]].clamp_max(most)
    else:
        filled = torch.zeros_like(images[n_chosen:])
    goes_on = routes.passes[images[:n_chosen]] > own + 1
    weights = torch.cat([torch.where(goes_on, settings.early_weight, 1.0), torch.ones(len(filled))])
    return _Students(images, torch.cat([own, filled]), weights), n_chosen


def _at_least(n: int, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """The chosen images (B,), filled up with random others to n: indices, int64."""
    others = (~chosen).nonzero().flatten()
    missing = max(0, n - int(chosen.sum()))
    return torch.cat([chosen.nonzero().flatten(), others[torch.randperm(len(others), generator=generator)[:missing]]])
