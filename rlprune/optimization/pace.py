"""What an image takes, in seconds, in all that is done with it."""

from __future__ import annotations

from dataclasses import dataclass

_TEACHER = 1 / 3
"""What a teacher's forward pass takes, of forward and backward of the whole network."""


@dataclass(frozen=True)
class Pace:
    """Seconds that an image takes.

    Attributes:
        forward: through the whole network.
        adapt: in a step that trains the whole network, its narrowest slice and two more, with a teacher.
        narrowest: multiply-adds of the narrowest slice over the whole network's.
        forward_here: through the whole network on the processor, where it is chosen and measured; None where all else
            is done there, too.
        piece: to export a part of a network to ONNX: a slice, or what decides.
    """

    forward: float
    adapt: float
    narrowest: float
    forward_here: float | None = None
    piece: float = 1.5

    @property
    def measured(self) -> float:
        """Through the whole network where it is measured, which is on the processor."""
        return self.forward if self.forward_here is None else self.forward_here

    @property
    def train(self) -> float:
        """Forward and backward of the whole network."""
        return self.adapt / (_TEACHER + self._networks_per_step(2))

    def slices(self, n_random: int) -> float:
        """In a step that trains the whole network, its narrowest slice and some more, with a teacher.

        Args:
            n_random: how many more.
        """
        return self.train * (_TEACHER + self._networks_per_step(n_random))

    def _networks_per_step(self, n_random: int) -> float:
        """What a step trains, counted in whole networks; slices drawn at random are taken for half-way in between."""
        middle = (1 + self.narrowest) / 2
        return 1 + self.narrowest + n_random * middle

    def static(self, share: float) -> float:
        """Seconds that an image takes in a step that trains a small network.

        Args:
            share: its multiply-adds over the whole network's.
        """
        return self.train * (_TEACHER + share)
