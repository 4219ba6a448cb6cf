"""What an action means: keep levels for every group, and whether the last prediction is accepted instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rlprune.elastic.levels import KeepLevels
from rlprune.elastic.module import ElasticModule
from rlprune.errors import LevelsError

ActionKind = Literal["profiles", "levels", "ratios"]
"""What a policy chooses: one profile of a codebook, or a keep level or a keep ratio for every group."""


@dataclass(frozen=True, eq=False)
class Actions:
    """Translates actions into profiles.

    Where an image may have several passes, the last entry of an action can accept the prediction at hand instead of
    choosing again. There is nothing to accept before the first pass: it then runs the profile that comes with the
    action, which for `profiles` is the cheapest, number 0. To choose what has just run is to accept as well.

    Attributes:
        kind: `profiles`, an index into the codebook; `levels`, one level per group; `ratios`, one number in [-1, 1]
            per group, from the lowest keep ratio to 1, taken to the nearest level.
        keep_levels: which levels each group may take.
        codebook: int64 (K, G), cheapest first; needed for `profiles` only.
        max_passes: the most passes an image may have.
    """

    kind: ActionKind
    keep_levels: KeepLevels
    codebook: Tensor | None
    max_passes: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(ActionKind):
            raise LevelsError(f"action kind {self.kind!r} is unknown; allowed: {', '.join(get_args(ActionKind))}")
        if not 1 <= self.max_passes <= 3:
            raise LevelsError(f"max_passes is {self.max_passes}; 1, 2 or 3 is allowed")
        if self.kind == "profiles" and self.codebook is None:
            raise LevelsError("action kind 'profiles' needs a codebook: int64 (K, G) profiles, cheapest first")

    @classmethod
    def from_network(
        cls,
        elastic: ElasticModule,
        kind: ActionKind,
        codebook: Tensor | Sequence[Sequence[int]] | None,
        max_passes: int,
    ) -> Actions:
        """The actions that fit a network.

        Raises:
            LevelsError: an unknown kind, or a codebook that the network does not have.
        """
        checked = None if codebook is None else elastic.check_codebook(torch.as_tensor(codebook))
        return cls(kind, elastic.keep_levels, checked, max_passes)

    @property
    def n_choices(self) -> tuple[int, ...]:
        """How many values each entry of a discrete action has; empty for `ratios`."""
        accepts = self.max_passes > 1
        if self.kind == "profiles":
            assert self.codebook is not None
            return (len(self.codebook) + accepts,)
        if self.kind == "levels":
            return (*(self.keep_levels.n_levels - int(low) for low in self.keep_levels.min_level), *(2,) * accepts)
        return ()

    @property
    def n_outputs(self) -> int:
        """How many numbers a policy gives: logits of all choices, or one mean per entry for `ratios`."""
        return sum(self.n_choices) if self.n_choices else self.keep_levels.n_groups + (self.max_passes > 1)

    def greedy(self, outputs: Tensor) -> Tensor:
        """The likeliest action: a policy's outputs (B, n_outputs) -> int64 (B, entries), or float (B, entries)."""
        if not self.n_choices:
            return outputs.clamp(-1, 1)
        parts = outputs.split(self.n_choices, dim=1) if len(self.n_choices) > 1 else [outputs]
        return torch.cat([part.argmax(1, keepdim=True) for part in parts], 1)

    def check(self, actions: Tensor) -> None:
        """Make sure that actions int64 or float (B, entries) are in their space.

        Raises:
            LevelsError: one is not.
        """
        choices = torch.tensor(self.n_choices)
        if len(choices) and ((actions < 0) | (actions >= choices)).any():
            raise LevelsError(f"an action is outside its space; its entries go from 0 to below {self.n_choices}")

    def decode(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Translate actions.

        Args:
            actions: int64 or float (B, entries), in their space.

        Returns:
            Levels int64 (B, G), and whether the last prediction is accepted, bool (B,).
        """
        n_groups = self.keep_levels.n_groups
        if self.kind == "profiles":
            assert self.codebook is not None
            profiles, accept = self.decode_profiles(actions)
            return self.codebook[profiles], accept
        accept = torch.zeros(len(actions), dtype=torch.bool) if self.max_passes == 1 else actions[:, n_groups] > 0
        if self.kind == "levels":
            return actions[:, :n_groups] + self.keep_levels.min_level, accept
        ratios = torch.tensor(self.keep_levels.keep_ratios)
        wanted = ratios[0] + (actions[:, :n_groups].clamp(-1, 1) + 1) / 2 * (1 - ratios[0])
        nearest = (wanted[..., None] - ratios).abs().argmin(-1)
        return self.keep_levels.clamp(nearest), accept

    def decode_profiles(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The same for `profiles`: indices into the codebook int64 (B,) instead of levels."""
        assert self.codebook is not None
        accept = actions[:, 0] == len(self.codebook)
        return torch.where(accept, 0, actions[:, 0]), accept


def nearest_profiles(levels: Tensor, codebook: Tensor) -> Tensor:
    """For every row of levels (B, G) the index of the codebook's profile with the smallest sum of differences, (B,)."""
    return (levels[:, None] - codebook).abs().sum(-1).argmin(1)
