"""Keeps freed memory with the process, since every batch needs as much again."""

from __future__ import annotations

import torch

MOST_KEPT = 2**25
"""Size in bytes of the largest block that glibc can be made to keep."""


def keep_freed() -> None:
    """Make the C library keep freed memory, up to some 64 MiB, for the next allocation.

    glibc returns large blocks to the system, which clears every page again for the next batch; that can take longer
    than the computation that fills them. Freeing one large block raises the size up to which glibc keeps blocks (see
    `M_MMAP_THRESHOLD` in mallopt(3)). With another allocator, nothing changes.
    """
    # Some pages below the limit, since glibc's own header of the block counts too.
    torch.empty(MOST_KEPT - 2**16, dtype=torch.uint8)
