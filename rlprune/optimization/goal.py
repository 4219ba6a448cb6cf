"""What a user asks for: how many points may be lost, how much is to be saved, and what of the plan is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from rlprune.elastic.levels import MAX_PROFILES
from rlprune.utils.settings import (
    AtMost,
    BatchSize,
    Epochs,
    LearningRate,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    settings_dataclass,
)

YesNo = Literal["auto", "yes", "no"]
Backend = Literal["onnxruntime", "pytorch"]
DEFAULT_DROP = 1.0
"""Points that may be lost where no target is given."""
MOST_MINUTES = 100_000


@settings_dataclass
class Goal:
    """What is to be reached; with none of the targets, the most saved within one point."""

    max_drop: Annotated[float, Field(ge=0, le=100)] | None = None
    """Accuracy that may be lost, in points (0.5: from 92.0 % to 91.5 %)."""
    min_speedup: Annotated[float, Field(gt=1), AtMost(1000)] | None = None
    """How many times as fast as the network you have, in its fastest form on this machine."""
    max_ms: PositiveFloat | None = None
    """Instead, milliseconds that a batch may take on this machine, on average."""
    max_macs: PositiveShare | None = None
    """Multiply-adds that an image may cost on average, as a share of the network's."""
    batch: Annotated[PositiveInt, AtMost(4096)] = 1
    """Images at once, for all times."""
    backend: Backend = "onnxruntime"
    """What it will run on: onnxruntime or pytorch."""

    def _conflicts(self) -> Iterator[str]:
        if self.min_speedup is not None and self.max_ms is not None:
            yield (
                f"min_speedup={self.min_speedup:g}, max_ms={self.max_ms:g}: both say how fast it has to be; give only "
                "one of them"
            )

    @property
    def drop(self) -> float | None:
        """Points that may be lost; None where only time or multiply-adds are bounded."""
        if self.max_drop is None and not self.bounds_cost:
            return DEFAULT_DROP
        return self.max_drop

    @property
    def bounds_cost(self) -> bool:
        """Whether time or multiply-adds are bounded."""
        return self.bounds_time or self.max_macs is not None

    @property
    def bounds_time(self) -> bool:
        """Whether time is bounded."""
        return self.min_speedup is not None or self.max_ms is not None

    def ms_allowed(self, dense_ms: float) -> float:
        """Milliseconds that a batch may take.

        Args:
            dense_ms: of the network as it is, in its fastest form.
        """
        if self.max_ms is not None:
            return self.max_ms
        return float("inf") if self.min_speedup is None else dense_ms / self.min_speedup

    def share_allowed(self, dense_ms: float) -> float:
        """Share of the time, or of the multiply-adds, that an image may cost; 1 where neither is bounded.

        Args:
            dense_ms: of the network as it is.
        """
        return min(1.0, self.ms_allowed(dense_ms) / dense_ms, 1.0 if self.max_macs is None else self.max_macs)

    @property
    def text(self) -> str:
        """It in words, such as `at most 0.5 points lost, at least 2 times as fast (batch 1, onnxruntime)`."""
        parts = []
        if self.drop is not None:
            parts.append(f"at most {self.drop:g} {'point' if self.drop == 1 else 'points'} lost")
        if self.min_speedup is not None:
            parts.append(f"at least {self.min_speedup:g} times as fast")
        if self.max_ms is not None:
            parts.append(f"at most {self.max_ms:g} ms")
        if self.max_macs is not None:
            parts.append(f"at most {100 * self.max_macs:g} % of the multiply-adds")
        if not self.bounds_cost:
            parts.insert(0, "the most saved")
        return f"{', '.join(parts)} (batch {self.batch}, {self.backend})"


@settings_dataclass
class PlanOptions:
    """What otherwise follows from time limit, network and data."""

    pretrain_epochs: Epochs | None = None
    """Passes over the pictures to train a network that has no weights yet."""
    slice_epochs: Epochs | None = None
    """Passes in which smaller forms of the network, of any size, learn to work; 0 leaves that out."""
    profile_epochs: Epochs | None = None
    """Passes in which the few sizes that are used are trained on; the one small network, their rival, gets as many."""
    batch_size: Annotated[BatchSize, Field(ge=2)] | None = None
    """Pictures in a training step."""
    learning_rate: LearningRate | None = None
    """Highest learning rate of these trainings; it falls towards their end."""
    flip: YesNo = "auto"
    """Mirror pictures at random while training: wrong for digits, right for most photographs; auto asks the network."""
    padding: Annotated[NonNegativeInt, AtMost(4096)] | None = None
    """Pixels by which pictures are shifted at random while training."""
    views: Annotated[NonNegativeInt, AtMost(1000)] | None = None
    """Shifted and mirrored copies of each picture that are kept and come again; 0 makes new ones every time."""
    n_profiles: Annotated[int, Field(ge=2, le=MAX_PROFILES)] | None = None
    """Sizes of the network that are used, the whole one among them."""
    n_candidates: Annotated[PositiveInt, AtMost(100_000)] | None = None
    """Sizes that are tried in the search for them."""
    max_passes: Annotated[int, Field(ge=1, le=3)] | None = None
    """Sizes that a picture may run through, one after the other, until one is sure."""
    policy_steps: Annotated[PositiveInt, AtMost(2**31 - 1)] | None = None
    """Trials from which it is learnt which size a picture needs."""
    penalties: tuple[PositiveFloat, PositiveFloat] = (0.002, 0.2)
    """Lowest and highest price of running the whole network once that choices are learnt for, in right answers: at 0.01
    it is run where that gets one more of a hundred pictures right."""
    pool: Annotated[NonNegativeInt, AtMost(32)] | None = None
    """What is seen of a picture beside the prediction so far, where a size is chosen: features of the first layers, in
    so many cells a side; 0 for none."""
    residual: YesNo = "auto"
    """Make the channels narrower, too, that run past the blocks of a residual network; auto does where little could be
    saved otherwise."""
    resolution: YesNo = "auto"
    """Look at pictures at lower resolutions, too; auto does where they have 64 pixels a side or more, and the network
    runs at others than the one it was made for."""

    def _conflicts(self) -> Iterator[str]:
        if self.penalties[0] >= self.penalties[1]:
            yield f"penalties={self.penalties}: give two numbers above 0, ascending"
        if self.slice_epochs == 0 and self.n_candidates is not None:
            yield (
                f"n_candidates={self.n_candidates}: with slice_epochs=0 none are searched, so this would do nothing; "
                "leave one of them out"
            )
