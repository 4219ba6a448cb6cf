"""Rivals for comparisons, as somebody would write them: `my_rivals:every_kind` and some that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlprune.baselines.cascade import Cascade, cascade_policy
from rlprune.baselines.rivals import RivalInputs
from rlprune.profiles.cost import Cost

CALLS: list[tuple[int, int, Path]] = []
"""Training images, epochs and folder of every call."""


def every_kind(given: RivalInputs) -> Iterator[Any]:
    """A policy, a profile, and a network of its own."""
    CALLS.append((len(given.training_images), given.training.epochs, given.folder))
    yield "policy", cascade_policy(given.network, given.codebook, Cascade((0,), 0.0))
    yield "profile", given.codebook[0]
    subnet, macs = given.network.slice(given.codebook[0]), Cost(given.network).of(given.codebook[0]).macs

    def predict(pixels: Tensor) -> tuple[Tensor, Tensor]:
        return subnet(given.policy_images.normalise(pixels)).argmax(1), macs.expand(len(pixels))

    yield "predict", predict


class InAClass:
    def __init__(self, given: RivalInputs) -> None:
        self.codebook = given.codebook

    def __iter__(self) -> Iterator[Any]:
        yield "first", self.codebook[0]


def no_argument() -> list[Any]:
    return []


def nothing(given: RivalInputs) -> list[Any]:
    return []


def twice(given: RivalInputs) -> list[Any]:
    return [("same", given.codebook[0])] * 2


def fails(given: RivalInputs) -> list[Any]:
    return [1 // 0]


def gives_nothing(given: RivalInputs) -> Any:
    return None


number = 3


def wrong(how: Any) -> Any:
    """A rival whose only point is this."""
    return lambda given: [("it", how)]


bare = lambda given: [given.codebook[0]]  # noqa: E731
text = wrong("profile 0")
floats = wrong(torch.ones(3))
too_high = lambda given: [("it", given.codebook[0] + 99)]  # noqa: E731
logits = wrong(lambda pixels: torch.zeros(len(pixels), 5))
one_cost = wrong(lambda pixels: (torch.zeros(len(pixels), dtype=torch.int64), torch.tensor(3)))
no_class = wrong(lambda pixels: (torch.full((len(pixels),), 77), torch.ones(len(pixels), dtype=torch.int64)))
no_cost = wrong(lambda pixels: (torch.zeros(len(pixels), dtype=torch.int64),) * 2)
breaks = wrong(lambda pixels: pixels.nothing)
