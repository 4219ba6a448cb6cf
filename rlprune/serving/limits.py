"""How much a server takes from a client."""

from __future__ import annotations

from typing import Annotated

from rlprune.utils.settings import AtMost, NonNegativeFloat, PositiveFloat, PositiveInt, settings_dataclass


@settings_dataclass
class Limits:
    """Bounds on what clients send, and on what is computed at a time."""

    max_megabytes: Annotated[PositiveFloat, AtMost(2048)] = 32.0
    """Bytes of a request, in units of 2^20."""
    max_pictures: Annotated[PositiveInt, AtMost(4096)] = 64
    """Pictures of a request."""
    max_megapixels: Annotated[PositiveFloat, AtMost(1000)] = 50.0
    """Pixels of a picture, as it is sent and as it is scaled, in millions."""
    max_waiting: Annotated[PositiveInt, AtMost(10_000)] = 32
    """Requests that are worked on or wait for that; more are told to come again."""
    upload_seconds: Annotated[PositiveFloat, AtMost(86_400)] = 30.0
    """Time in which a request must have arrived."""
    at_once: Annotated[PositiveInt, AtMost(1024)] = 2
    """Requests that are decoded at the same time; and predicted, by a file that scales pictures itself."""
    max_wait_ms: Annotated[NonNegativeFloat, AtMost(60_000)] = 5.0
    """Milliseconds for which images that may run together are passed over for larger groups; more of it costs less of
    the processor and lets images wait."""

    @property
    def max_bytes(self) -> int:
        """Bytes of a request."""
        return int(self.max_megabytes * 2**20)

    @property
    def max_pixels(self) -> int:
        """Pixels of a picture."""
        return int(self.max_megapixels * 1_000_000)
