"""Which channels of which groups a layer's input or output holds, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Kept = slice | Tensor
"""Positions of an axis that are kept: a slice where they are contiguous, else int64 indices."""


class Run(NamedTuple):
    """Consecutive positions of a layer's axis that hold consecutive channels, each `repeat` times."""

    start: int
    channel: int
    n_channels: int
    repeat: int


class Axis:
    """The channels on one side of a layer.

    Args:
        size: number of positions on the axis.
        runs: for each group with channels here, its index and their positions; all other positions are always kept.
    """

    def __init__(self, size: int, runs: Sequence[tuple[int, Run]] = ()) -> None:
        self.size = size
        self.runs = tuple(sorted(runs, key=lambda item: item[1].start))
        self.groups = tuple(sorted({group for group, _ in self.runs}))
        self.group = torch.zeros(size, dtype=torch.int64)
        self.channel = torch.full((size,), -1, dtype=torch.int64)
        for group, run in self.runs:
            here = slice(run.start, run.start + run.n_channels * run.repeat)
            self.group[here] = group
            self.channel[here] = torch.arange(run.channel, run.channel + run.n_channels).repeat_interleave(run.repeat)
        self.n_fixed = int((self.channel < 0).sum())
        self._kept: dict[tuple[int, ...], Kept] = {}

    @property
    def only_group(self) -> int | None:
        """The one group that all of the axis belongs to, if so."""
        return self.groups[0] if len(self.groups) == 1 and not self.n_fixed else None

    def kept(self, widths: Sequence[int]) -> Kept:
        """The positions that are kept when group g keeps its first `widths[g]` channels."""
        if not self.runs:
            return slice(None)
        key = tuple(widths[group] for group in self.groups)
        if key not in self._kept:
            kept = self.channel < torch.tensor(widths)[self.group]
            n_kept = int(kept.sum())
            self._kept[key] = slice(0, n_kept) if bool(kept[:n_kept].all()) else kept.nonzero().flatten()
        return self._kept[key]

    def count(self, group: int, width: int) -> int:
        """How many positions of a group are kept when it keeps its first `width` channels."""
        return int(((self.group == group) & (self.channel >= 0) & (self.channel < width)).sum())

    def positions(self, group: int, order: Tensor) -> tuple[Tensor, Tensor]:
        """The positions of a group's channels, and for each the position that its new content comes from.

        Args:
            group: index of the group.
            order: int64 (n_channels,), the old channel for every new one.

        Returns:
            Targets and sources, int64 (n,) each, n positions of the group; every channel has as many as any other.
        """
        held = ((self.group == group) & (self.channel >= 0)).nonzero().flatten()
        targets = held[self.channel[held].argsort(stable=True)].view(len(order), -1)
        return targets.flatten(), targets[order].flatten()
