"""What a verb that trains keeps on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlprune.errors import RLPruneError
from rlprune.events import scalar_log


@contextmanager
def resumable(out: Path, verb: str, *, resume: bool) -> Iterator[dict[str, Any]]:
    """Where a training's checkpoint and events go, as its arguments; the checkpoint goes away once `out` is written.

    Raises:
        RLPruneError: what is finished would be trained again, or what was interrupted be overwritten.
    """
    checkpoint = check_unfinished(out, resume=resume)
    yield {"checkpoint": checkpoint, "log": scalar_log(out.parent / "logs", verb)}
    checkpoint.unlink()


def check_unfinished(out: Path, *, resume: bool) -> Path:
    """Where the checkpoint is of a training that is to be begun, or gone on with.

    Raises:
        RLPruneError: what is finished would be trained again, or what was interrupted be overwritten.
    """
    checkpoint = out.with_name(f"{out.name}.checkpoint.pt")
    if checkpoint.exists() and not resume:
        raise RLPruneError(f"{checkpoint} is from an interrupted run: add --resume to go on with it, or remove it")
    if out.exists() and not checkpoint.exists():
        raise RLPruneError(f"{out} is there and finished; name another --out, or remove it to train anew")
    return checkpoint
