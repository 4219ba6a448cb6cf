"""Keep levels: the shares of its channels that each group may keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from rlprune.elastic.channels import Group
from rlprune.elastic.layers.resolution import side_share
from rlprune.errors import LevelsError, SettingsError
from rlprune.utils.finite import check_numbers

KEEP_RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Default keep ratios."""
MAX_PROFILES = 16
"""How many profiles a codebook may have."""
_NEEDED = "at least two, ascending, from 0 or more up to exactly 1, are needed"


class KeepLevels:
    """The table of keep levels that a network, its policies and its costs share.

    A keep level is an index into the ascending keep ratios. Where the lowest ratio is 0, level 0 drops a whole group,
    which only skippable groups may do.

    Args:
        keep_ratios: ascending shares in [0, 1], the last one 1; L of them, 2 or more.
        min_level: the lowest level of each group, int64 (G,).

    Raises:
        LevelsError: the ratios are not ascending from 0 or more to exactly 1, or there are fewer than two.
    """

    def __init__(self, keep_ratios: Sequence[float], min_level: Tensor) -> None:
        self.keep_ratios = checked_ratios(keep_ratios)
        self.min_level = min_level.cpu()
        self.lowest = tuple(
            self.min_level.tolist()
        )  # numbers, which torch 2.6 does not read from a tensor that it exports

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeepLevels):
            return NotImplemented
        return self.keep_ratios == other.keep_ratios and self.min_level.equal(other.min_level)

    __hash__ = None  # type: ignore[assignment]  # it holds a tensor

    def __repr__(self) -> str:
        return f"KeepLevels(keep_ratios={self.keep_ratios}, min_level={self.min_level.tolist()})"

    @property
    def n_groups(self) -> int:
        """How many groups, G."""
        return len(self.min_level)

    @property
    def n_levels(self) -> int:
        """How many keep levels, L."""
        return len(self.keep_ratios)

    @property
    def narrowest(self) -> int:
        """The lowest level that keeps channels: 1 where level 0 drops them all, else 0."""
        return int(self.keep_ratios[0] == 0)

    @property
    def full(self) -> Tensor:
        """The profile that keeps everything, int64 (G,)."""
        return torch.full((self.n_groups,), self.n_levels - 1)

    def uniform(self, level: int) -> Tensor:
        """The profile of one level for all groups, or of a group's lowest level where that is higher, int64 (G,)."""
        return self.min_level.clamp_min(level)

    def clamp(self, levels: Tensor) -> Tensor:
        """Levels int64 (..., G), each moved to the nearest that its group has."""
        return levels.clamp_max(self.n_levels - 1).maximum(self.min_level)

    def ratios_of(self, levels: Tensor) -> Tensor:
        """The keep ratios that levels stand for, float32 of the same shape."""
        return torch.tensor(self.keep_ratios)[levels]

    def level_of(self, ratio: float) -> int:
        """The level that keeps this share of a group's channels.

        Raises:
            LevelsError: there is no such keep ratio, or nothing is to be kept.
        """
        allowed = [kept for kept in self.keep_ratios if kept > 0]
        if ratio not in allowed:
            raise LevelsError(
                f"width {ratio} is none that this network was made for; allowed: {', '.join(map(str, allowed))} "
                "(others with ElasticCNN.from_model(..., keep_ratios=...); branches are dropped by set_depth)"
            )
        return self.keep_ratios.index(ratio)


def checked_ratios(keep_ratios: Sequence[float]) -> tuple[float, ...]:
    """Return keep ratios as floats, if they are ascending shares.

    Raises:
        LevelsError: they are not ascending from 0 or more to exactly 1, or there are fewer than two.
    """
    try:
        check_numbers(**{f"keep_ratios[{i}]": ratio for i, ratio in enumerate(keep_ratios)})
    except SettingsError as error:
        raise LevelsError(f"{error}; {_NEEDED}") from error
    ratios = tuple(float(ratio) for ratio in keep_ratios)
    ascending = all(low < high for low, high in pairwise(ratios))
    if len(ratios) < 2 or not ascending or not ratios[0] >= 0 or ratios[-1] != 1:
        raise LevelsError(f"keep ratios are {ratios}; {_NEEDED}")
    return ratios


def levels_of(groups: Sequence[Group], keep_ratios: Sequence[float]) -> KeepLevels:
    """The levels of groups: only those that are skippable may drop all channels.

    Raises:
        LevelsError: the keep ratios are not ascending up to 1.
    """
    ratios = checked_ratios(keep_ratios)
    narrowest = int(ratios[0] == 0)
    return KeepLevels(ratios, torch.tensor([0 if group.skippable else narrowest for group in groups]))


def widths_of(groups: Sequence[Group], levels: KeepLevels, round_to: int) -> Tensor:
    """Channels that each group keeps at each level, or rows, where it is the resolution; int64 (G, L)."""

    def width(group: Group, ratio: float) -> int:
        if group.is_resolution:
            return int(group.n_channels * side_share(ratio))
        step = math.ceil(round_to / group.layer_channels)
        n_steps = math.ceil(ratio * group.n_channels / step - 1e-9)
        return min(group.n_channels, n_steps * step)

    return torch.tensor([[width(group, ratio) for ratio in levels.keep_ratios] for group in groups])


def nearest_profiles(levels: Tensor, codebook: Tensor) -> Tensor:
    """The profile of a codebook that is nearest to each row of levels, by the sum of absolute differences.

    Args:
        levels: int64 (..., G).
        codebook: int64 (K, G).

    Returns:
        Indices into the codebook, the first of equally near ones, int64 (...).
    """
    return (levels[..., None, :] - codebook).abs().sum(-1).argmin(-1)
