"""What is optimised: a network, whether it has been trained, and images that are split for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from rlprune.data.image_set import Splits


@dataclass(frozen=True, eq=False)
class Subject:
    """What is optimised.

    Attributes:
        name: of the network.
        model: it, on the CPU and in eval mode; normalised images (B, C, H, W) -> logits (B, classes).
        trained: whether it has been trained; else it is pretrained first.
        splits: the images; those for the decisions and for choosing are what `heldout` held, if that was given.
        data: where they are from.
        notes: on network and images, stored with what is made.
        said: lines that reading them has led to, such as how pictures are prepared.
    """

    name: str
    model: nn.Module
    trained: bool
    splits: Splits
    data: str
    notes: dict[str, Any]
    said: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images."""
        return tuple(self.splits.network.images.shape[1:])
