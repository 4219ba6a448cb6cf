"""Translates actions into keep levels for every group, or into accepting the prediction so far."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprune.elastic.levels import KeepLevels
from rlprune.errors import LevelsError
from rlprune.utils.process import CachedProperty

ActionKind = Literal["profiles", "levels", "ratios"]
"""What a policy chooses: one profile of a codebook, or a keep level or a keep ratio for every group."""


class HasLevels(Protocol):
    """What actions need of an elastic network."""

    @property
    def keep_levels(self) -> KeepLevels:
        """Its table of levels."""

    def check_codebook(self, codebook: Tensor) -> Tensor:
        """Return a codebook if it is one of this network's."""


@dataclass(frozen=True, eq=False)
class Actions:
    """Translates actions into profiles.

    Where an image may have several passes, the last entry of an action can accept the prediction so far instead of
    choosing another pass. Before the first pass there is nothing to accept: an action that accepts then runs the
    profile that comes with it, which for `profiles` is the cheapest, number 0. Choosing the profile that has just run
    means to accept as well.

    Attributes:
        kind: `profiles`, an index into the codebook; `levels`, one level per group; `ratios`, one number in [-1, 1]
            per group, which stands for a keep ratio from the lowest to 1 and is rounded to the nearest level.
        keep_levels: which levels each group may take.
        codebook: int64 (K, G), cheapest first; needed for `profiles` only.
        max_passes: the most passes an image may have, 1 to 3.

    Raises:
        LevelsError: an unknown kind, `max_passes` outside 1 to 3, or `profiles` without a codebook.
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
        elastic: HasLevels,
        kind: ActionKind,
        codebook: Tensor | Sequence[Sequence[int]] | None,
        max_passes: int,
    ) -> Actions:
        """The actions for a network.

        Args:
            elastic: the network.
            kind: as in the class.
            codebook: profiles of the network, int64 (K, G), cheapest first; None without a codebook.
            max_passes: as in the class.

        Raises:
            LevelsError: an unknown kind, `max_passes` outside 1 to 3, or a codebook that the network does not have.
        """
        checked = None if codebook is None else elastic.check_codebook(torch.as_tensor(codebook))
        return cls(kind, elastic.keep_levels, checked, max_passes)

    of = from_network
    """`from_network`, as 0.1.0 called it."""

    def __repr__(self) -> str:
        """In one line."""
        profiles = f"{len(self.codebook)} profiles; " if self.codebook is not None else ""
        return f"Actions({self.kind!r}; {profiles}{self.keep_levels.n_groups} groups; max_passes={self.max_passes})"

    @CachedProperty
    def n_choices(self) -> tuple[int, ...]:
        """How many values each entry of a discrete action has; empty for `ratios`."""
        accepts = self.max_passes > 1
        if self.kind == "profiles":
            assert self.codebook is not None
            return (len(self.codebook) + accepts,)
        if self.kind == "levels":
            choices = [self.keep_levels.n_levels - low for low in self.keep_levels.lowest]
            return (*choices, 2) if accepts else tuple(choices)
        return ()

    @CachedProperty
    def _choices(self) -> Tensor:
        return torch.tensor(self.n_choices)

    @CachedProperty
    def n_outputs(self) -> int:
        """How many numbers a policy outputs: logits of all choices, or one mean per entry for `ratios`."""
        return sum(self.n_choices) if self.n_choices else self.keep_levels.n_groups + (self.max_passes > 1)

    def greedy(self, outputs: Tensor) -> Tensor:
        """The most probable action.

        Args:
            outputs: of a policy, float32 (B, n_outputs).

        Returns:
            int64 (B, entries); for `ratios` float32 in [-1, 1], (B, entries).
        """
        if not self.n_choices:
            return outputs.clamp(-1, 1)
        parts = outputs.split(self.n_choices, dim=1) if len(self.n_choices) > 1 else [outputs]
        return torch.cat([part.argmax(1, keepdim=True) for part in parts], 1)

    @CachedProperty
    def n_entries(self) -> int:
        """How many numbers an action has."""
        return len(self.n_choices) or self.n_outputs

    def read(self, actions: Any, n: int) -> Tensor:
        """Take actions as a user gives them.

        Args:
            actions: array-like, whole numbers or for `ratios` numbers, (n, entries); or (n,) where there is one entry.
            n: how many there must be.

        Returns:
            int64, or for `ratios` float, (n, entries).

        Raises:
            LevelsError: they are of another type or shape, or outside the action space.
        """
        values = self._numbers(actions)
        if values.shape != (n, self.n_entries) and (values.shape != (n,) or self.n_entries != 1):
            raise LevelsError(f"actions have shape {values.shape}; ({n}, {self.n_entries}) is needed")
        return self._checked(values.reshape(n, self.n_entries))

    def one(self, action: Any) -> Tensor:
        """Take the action for one image as a user gives it.

        Args:
            action: a whole number, or for `ratios` a number, for each entry: array-like (entries,); one without an axis
                where there is one entry.

        Returns:
            int64, or for `ratios` float, (1, entries).

        Raises:
            LevelsError: it is of another type or shape, or outside the action space.
        """
        values = self._numbers(action)
        if values.shape != (self.n_entries,) and (values.shape or self.n_entries != 1):
            needed = "() is needed, a single number" if self.kind == "profiles" else f"({self.n_entries},) is needed"
            raise LevelsError(f"an action has shape {values.shape}; {needed}")
        return self._checked(values.reshape(1, self.n_entries))

    def _numbers(self, actions: Any) -> NDArray[Any]:
        """Actions as an array of the right type."""
        needed = "whole numbers are needed" if self.n_choices else "numbers from -1 to 1 are needed"
        try:
            values = np.asarray(actions)
        except (TypeError, ValueError, RuntimeError) as error:
            raise LevelsError(f"an action is {reprlib.repr(actions)}; {needed}") from error
        if values.dtype.kind not in ("iu" if self.n_choices else "iuf"):
            raise LevelsError(f"an action is {reprlib.repr(actions)}, of type {values.dtype}; {needed}")
        return values

    def _checked(self, values: NDArray[Any]) -> Tensor:
        """Actions (n, entries) of the right type, if they are inside the action space."""
        raw = torch.from_numpy(values.astype(np.int64 if self.n_choices else values.dtype))
        self.check(raw)
        return raw

    def check(self, actions: Tensor) -> None:
        """Make sure that actions are inside the action space.

        Args:
            actions: int64 or float (B, entries).

        Raises:
            LevelsError: an entry is below 0 or not below the number of its choices; or a ratio is NaN or infinite.
                Others beyond [-1, 1] are taken to its border.
        """
        if not self.n_choices:
            if not bool(actions.isfinite().all()):
                raise LevelsError("an action is NaN or infinite; ratios are numbers from -1 to 1")
        elif bool(((actions < 0) | (actions >= self._choices)).any()):
            raise LevelsError(f"an action is outside its space; its entries go from 0 to below {self.n_choices}")

    def masks(self, passes: Tensor) -> Tensor:
        """Which choices make sense: all, but to accept a prediction before there is one.

        Args:
            passes: made so far, int64 (B,).

        Returns:
            bool (B, n_outputs), the choices of all entries side by side.

        Raises:
            LevelsError: ratios are no choices.
        """
        if not self.n_choices:
            raise LevelsError("actions of kind 'ratios' have no choices to be masked; take 'profiles' or 'levels'")
        masks = torch.ones(len(passes), self.n_outputs, dtype=torch.bool)
        if self.max_passes > 1:
            masks[:, -1] = passes > 0
        return masks

    def decode(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Translate actions into keep levels.

        Args:
            actions: int64 or float (B, entries), inside the action space.

        Returns:
            Levels int64 (B, G), and whether the prediction so far is accepted instead, bool (B,).
        """
        n_groups = self.keep_levels.n_groups
        if self.kind == "profiles":
            assert self.codebook is not None
            profiles, accept = self.decode_profiles(actions)
            return self.codebook[profiles], accept
        accept = torch.zeros(len(actions), dtype=torch.bool) if self.max_passes == 1 else actions[:, n_groups] > 0
        if self.kind == "levels":
            return actions[:, :n_groups] + self.keep_levels.min_level, accept
        ratios = torch.tensor(self.keep_levels.keep_ratios)  # never kept: within an exporter it is no real tensor
        chosen = ratios[0] + (actions[:, :n_groups].clamp(-1, 1) + 1) / 2 * (1 - ratios[0])
        nearest = (chosen[..., None] - ratios).abs().argmin(-1)
        return self.keep_levels.clamp(nearest), accept

    def decode_profiles(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Translate actions of kind `profiles`.

        Args:
            actions: int64 (B, 1), inside the action space.

        Returns:
            Indices into the codebook int64 (B,), and whether the prediction so far is accepted instead, bool (B,).
        """
        assert self.codebook is not None
        accept = actions[:, 0] == len(self.codebook)
        return torch.where(accept, 0, actions[:, 0]), accept
