"""What a client is told where its request cannot be answered."""

from __future__ import annotations

from rlprune.errors import RLPruneError


class RefusedError(RLPruneError):
    """A request that cannot be answered.

    Args:
        status: of HTTP, 400 to 599.
        reason: a short sentence for the client.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
