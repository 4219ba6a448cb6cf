"""What a user asks for: how many points may be lost, and how much is to be saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from rlprune.utils.settings import AtMost, PositiveFloat, PositiveInt, PositiveShare, settings_dataclass

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
