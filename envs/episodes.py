"""What worlds hand around: the state of episodes, the outcome of a step, and what `info` holds of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from rlprune.data.image_set import ImageSet


@dataclass(eq=False)
class Episodes:
    """The state of n episodes; every tensor has n rows.

    Attributes:
        images: index of each episode's image, int64.
        passes: made so far, int64.
        logits: of the prediction after the passes so far, float32 (n, classes).
        macs: MACs of the passes so far, int64.
        levels: of the last pass, int64 (n, G); -1 before the first.
        penalties: price of compute, float32.
    """

    images: Tensor
    passes: Tensor
    logits: Tensor
    macs: Tensor
    levels: Tensor
    penalties: Tensor

    def take(self, rows: Tensor) -> Episodes:
        """A copy of some rows."""
        return Episodes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def replace(self, rows: Tensor, fresh: Episodes) -> None:
        """Put fresh episodes into some rows."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(fresh, field.name)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a step did to n episodes; every tensor has n rows.

    Attributes:
        rewards: float32.
        done: whether the episode is over, bool.
        correct: whether the prediction that stands now is right, bool.
        predictions: its class, int64.
        params: active parameters of this step over the dense network's.
        macs: MACs likewise.
        levels: the levels chosen, int64 (n, G); -1 where the last prediction was accepted.
        passes: made so far.
    """

    rewards: Tensor
    done: Tensor
    correct: Tensor
    predictions: Tensor
    params: Tensor
    macs: Tensor
    levels: Tensor
    passes: Tensor


class HasKeepRatios(Protocol):
    """What infos need of a network."""

    @property
    def keep_ratios(self) -> Sequence[float]:
        """What its keep levels stand for."""


class Shown(Protocol):
    """What infos need of a world."""

    @property
    def data(self) -> ImageSet:
        """The images."""

    @property
    def network(self) -> HasKeepRatios:
        """The network."""


def first_information(world: Shown, episodes: Episodes) -> list[dict[str, Any]]:
    """When an episode starts: `image` and `label`."""
    labels = world.data.labels[episodes.images].tolist()
    return [{"image": image, "label": label} for image, label in zip(episodes.images.tolist(), labels, strict=True)]


def information(world: Shown, episodes: Episodes, outcome: Outcome) -> list[dict[str, Any]]:
    """After a step; `is_success` is there when an episode has ended."""
    levels = outcome.levels.numpy()
    ratios = np.array(world.network.keep_ratios, np.float32)[levels]
    ratios[levels < 0] = np.nan
    columns = {
        "image": episodes.images.tolist(),
        "label": world.data.labels[episodes.images].tolist(),
        "prediction": outcome.predictions.tolist(),
        "accuracy": outcome.correct.float().tolist(),
        "active_params": outcome.params.tolist(),
        "active_macs": outcome.macs.tolist(),
        "passes": outcome.passes.tolist(),
        "keep_ratios": list(ratios),
    }
    infos = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for info, done in zip(infos, outcome.done.tolist(), strict=True):
        if done:
            info["is_success"] = bool(info["accuracy"])
    return infos
