"""The protocol of rewards, and the default ones, which are written in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from rlprune.errors import RLPruneError
from rlprune.policies.named import name_of, told


@dataclass(frozen=True, eq=False)
class Step:
    """What a step did to n episodes, as a reward sees it; every tensor has n rows.

    Attributes:
        images: index of each episode's image, int64.
        labels: of the images, int64.
        logits: of the prediction that stands now, float32 (n, classes).
        correct: whether it is right, bool.
        done: whether the episode is over, so that the prediction is final, bool.
        passes: made so far, this step's included, int64.
        levels: the levels that were chosen, int64 (n, G); -1 where the prediction was accepted.
        params: active parameters of this step over the dense network's, float32.
        macs: MACs likewise.
        price: what is paid for, as `cost` says: one of these two, or time, over the dense network's, float32.
        penalties: price of compute, float32.
        compute_whole: computes `whole_logits`.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    correct: Tensor
    done: Tensor
    passes: Tensor
    levels: Tensor
    params: Tensor
    macs: Tensor
    price: Tensor
    penalties: Tensor
    compute_whole: Callable[[], Tensor]

    @cached_property
    def whole_logits(self) -> Tensor:
        """Of the whole network on the images, float32 (n, classes); it runs when this is asked for first."""
        return self.compute_whole()

    @property
    def whole_correct(self) -> Tensor:
        """Whether the whole network is right on the images, bool."""
        return self.whole_logits.argmax(1) == self.labels


class Reward(Protocol):
    """What a step is worth; a training maximises the sum over the one to three steps of an episode.

    Its settings are the arguments of its constructor, kept as attributes of the same names, as those of a dataclass
    are; they are plain values.
    """

    def __call__(self, step: Step) -> Tensor:
        """Rewards of n episodes, float (n,)."""


@dataclass(frozen=True)
class CorrectMinusCost:
    """A right answer is worth 1, at the end; every step costs what it ran, times the penalty."""

    def __call__(self, step: Step) -> Tensor:
        """Rewards float32 (n,)."""
        return step.correct.float() * step.done - step.penalties * step.price


@dataclass(frozen=True)
class ControlVariate:
    """The same, minus 1 at the end if the whole network is right on the image: less noise, same optimum."""

    def __call__(self, step: Step) -> Tensor:
        """Rewards float32 (n,)."""
        gain = step.correct.float() - step.whole_correct.float()
        return gain * step.done - step.penalties * step.price


def checked_rewards(reward: Reward, step: Step) -> Tensor:
    """The rewards of a step, float32 (n,).

    Raises:
        RLPruneError: the reward fails, or gives something else than n finite numbers.
    """
    name, n = name_of(type(reward)), len(step.done)
    try:
        found = reward(step)
    except RLPruneError:
        raise
    except Exception as error:  # of the user's own code
        raise RLPruneError(f"the reward {name} failed ({told(error)})") from error
    if not isinstance(found, Tensor) or found.shape != (n,) or not found.is_floating_point():
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise RLPruneError(f"the reward {name} gives {what} for {n} episodes; float32 ({n},) is needed")
    if not bool(found.isfinite().all()):
        raise RLPruneError(f"the reward {name} gives numbers that are not finite (NaN or infinite)")
    return found.detach().float()
