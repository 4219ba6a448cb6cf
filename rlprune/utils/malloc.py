"""Memory that is freed stays with the process, since every batch needs as much again."""

from __future__ import annotations

import torch

MOST_KEPT = 2**25
"""Bytes of the largest block that glibc can be made to keep."""


def keep_freed() -> None:
    """Let the C library keep memory that is freed, up to some 64 MiB, for whatever asks next.

    glibc gives large blocks back to the system, which clears every page anew when the next batch asks for it; that can
    take longer than computing what goes into them. One that is freed makes it keep those that are smaller (see
    `M_MMAP_THRESHOLD` in mallopt(3)). Where another library allocates, nothing changes.
    """
    # some pages below its limit, as what it writes down of a block counts
    torch.empty(MOST_KEPT - 2**16, dtype=torch.uint8)
