"""What a verb that trains keeps on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rlprune.errors import RLPruneError
from rlprune.utils.files import write_json
from rlprune.utils.tensorboard import scalar_log

_MAY_CHANGE = {"out", "resume", "settings"}
"""Options that a run may be resumed under others of: where it is, and what its checkpoint knows itself."""


class Verb(Protocol):
    """A verb that trains: a dataclass of its options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def out(self) -> Path:
        """What it writes."""

    @property
    def resume(self) -> bool:
        """Whether an interrupted run is to be gone on with."""


@contextmanager
def resumable(verb: Verb, name: str) -> Iterator[dict[str, Any]]:
    """Where a training's checkpoint and events go, as its arguments; the checkpoint goes away once `out` is written.

    Raises:
        RLPruneError: what is finished would be trained again, what was interrupted be overwritten, or be gone on with
            under other options.
    """
    checkpoint = check_unfinished(verb.out, resume=verb.resume)
    note = checkpoint.with_suffix(".json")
    said = _options(verb)
    if checkpoint.exists() and note.exists():
        before = json.loads(note.read_text())
        if changed := [key for key, value in said.items() if before.get(key) != value]:
            raise RLPruneError(
                f"{checkpoint} was written under other options: {', '.join(changed)}, which {note} has; go back to "
                "those, or remove the checkpoint to start anew"
            )
    write_json(note, said)
    try:
        yield {"checkpoint": checkpoint, "log": scalar_log(verb.out.parent / "logs", name)}
        checkpoint.unlink(missing_ok=True)
    finally:
        if not checkpoint.exists():
            note.unlink()


def _options(verb: Verb) -> dict[str, Any]:
    """By name, as JSON holds them."""
    found: dict[str, Any] = {}
    for name, value in asdict(verb).items():
        if name not in _MAY_CHANGE:
            found |= value if isinstance(value, dict) else {name: value}
    return dict(json.loads(json.dumps(found, default=str)))


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
