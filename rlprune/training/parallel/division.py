"""How the images of a step are divided: into pieces, one after the other, and each piece among the processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlprune.training.parallel.group import ALONE, Group, current
from rlprune.training.parallel.norms import OfWholeBatch


@dataclass(frozen=True)
class Piece:
    """Some images of a step that go through the network together, and which of them are this process's.

    Attributes:
        start: the first of the piece among the step's images.
        stop: the first that is not of it.
        own: which of the piece's images are this process's.
        weight: of their mean loss in the step's.
        group: the processes that share it; a single one where each does all of it.
    """

    start: int
    stop: int
    own: slice
    weight: float
    group: Group

    @property
    def rows(self) -> Tensor:
        """Which of the step's images are this process's, int64."""
        return torch.arange(self.start + self.own.start, self.start + self.own.stop)

    def together(self) -> AbstractContextManager[Any]:
        """A context in which norms and dropout are those of the whole piece."""
        if self.group.size == 1:
            return nullcontext()
        return OfWholeBatch(self.group, self.stop - self.start, self.own)


@dataclass(frozen=True)
class Division:
    """The pieces of a step, which do not depend on how many processes there are.

    Attributes:
        pieces: in their order.
    """

    pieces: Sequence[Piece]

    @classmethod
    def of(cls, n: int, n_pieces: int = 1) -> Division:
        """Divide n images.

        A piece with fewer images than there are processes is done whole by each of them, as norms need images.

        Args:
            n: how many there are.
            n_pieces: how many pieces; fewer where one would have a single image.
        """
        group = current()
        n_pieces = max(1, min(n_pieces, n // 2))
        pieces = []
        for number in range(n_pieces):
            start, stop = number * n // n_pieces, (number + 1) * n // n_pieces
            shared = group if stop - start >= group.size else ALONE
            own = shared.part(stop - start)
            weight = (own.stop - own.start) / n / (group.size if shared.size == 1 else 1)
            pieces.append(Piece(start, stop, own, weight, shared))
        return cls(pieces)

    @property
    def is_whole(self) -> bool:
        """Whether all images go through the network at once, here."""
        return len(self.pieces) == 1 and self.pieces[0].group.size == 1

    @property
    def rows(self) -> Tensor | slice:
        """Which of the step's images are this process's, piece after piece: int64, or all."""
        return slice(None) if self.is_whole else torch.cat([piece.rows for piece in self.pieces])
