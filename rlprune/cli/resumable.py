"""The checkpoint and the log of a verb that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rlprune.errors import RLPruneError
from rlprune.intake.identity import same_source
from rlprune.storage.provenance import check_unchanged, note_to_compare, plain
from rlprune.training.parallel.group import current
from rlprune.utils.files import check_target_folder, write_json
from rlprune.utils.locks import hold
from rlprune.utils.tensorboard import scalar_log

_MAY_CHANGE = {"out", "resume", "settings", "several", "trust_pickle"}
"""Options that a run may be resumed under others of: where it is, and what its checkpoint knows itself."""


class FinishedError(RLPruneError):
    """What is to be resumed is finished already: nothing is left to do, which is no mistake."""


class Verb(Protocol):
    """A verb that trains: a dataclass of its options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def out(self) -> Path:
        """What it writes."""

    @property
    def resume(self) -> bool:
        """Whether to continue an interrupted run."""


@contextmanager
def resumable(verb: Verb, name: str, check: Callable[[Path], None]) -> Iterator[dict[str, Any]]:
    """Where a training's checkpoint and events go, as its arguments; the checkpoint goes away once `out` is written.

    No other process can train into `out` meanwhile. Nothing else is done before that is sure. Of several that train
    together the first alone looks, writes and removes; what it finds wrong is wrong for all.

    Args:
        verb: the verb.
        name: of its events.
        check: makes sure that `out` may be written, by what is there.

    Raises:
        FinishedError: it was finished, and what was left of the run is removed.
        InUseError: another process does.
        RLPruneError: what is finished would be trained again, or what was interrupted would be overwritten, or
            continued under other options.
    """
    with current().first(_kept(verb, name, check)) as kept:
        yield {"checkpoint": _checkpoint_of(verb.out), "log": None} if kept is None else kept


@contextmanager
def _kept(verb: Verb, name: str, check: Callable[[Path], None]) -> Iterator[dict[str, Any]]:
    """The same, in a process that writes."""
    with hold(verb.out):
        check(verb.out)
        logs = verb.out.parent / "logs"
        check_target_folder(logs / name)
        checkpoint = check_unfinished(verb.out, resume=verb.resume)
        note = _note_of(checkpoint)
        said = _options(verb)
        if checkpoint.exists() and note.exists():
            anew = "remove the checkpoint to start anew"
            before = note_to_compare(note, dict, anew)
            cure = f"go back to those, which {note} has, or {anew}"
            check_unchanged(f"checkpoint {checkpoint}", before, said, cure, same_source)
        write_json(note, said)
        try:
            yield {"checkpoint": checkpoint, "log": scalar_log(logs, name, verb.out.name)}
            checkpoint.unlink(missing_ok=True)
        finally:
            if not checkpoint.exists():
                note.unlink(missing_ok=True)


def _options(verb: Verb) -> dict[str, Any]:
    """By name, as JSON holds them; those of groups of options stand beside the verb's own."""
    found: dict[str, Any] = {}
    for name, value in plain(verb).items():
        if name not in _MAY_CHANGE:
            found |= value if isinstance(value, dict) else {name: value}
    return {name: value for name, value in found.items() if name not in _MAY_CHANGE}


def _note_of(checkpoint: Path) -> Path:
    """Where the options of a run are kept."""
    return checkpoint.with_suffix(".json")


def _checkpoint_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.checkpoint.pt")


def check_unfinished(out: Path, *, resume: bool) -> Path:
    """Where the checkpoint of a training is that is to begin, or to continue.

    Raises:
        FinishedError: it was finished and is to be resumed: what is left of the run is removed.
        RLPruneError: what is finished would be trained again, or what was interrupted would be overwritten.
    """
    checkpoint = _checkpoint_of(out)
    if checkpoint.exists() and not resume:
        raise RLPruneError(f"{checkpoint} is from an interrupted run: add --resume to continue it, or remove it")
    if out.exists() and resume:  # written whole after the last step; the checkpoint goes after it, and the note last
        checkpoint.unlink(missing_ok=True)
        _note_of(checkpoint).unlink(missing_ok=True)
        raise FinishedError(f"{out} is finished already; nothing is left to resume")
    if out.exists():
        raise RLPruneError(f"{out} exists and is finished; name another --out, or remove it to train anew")
    return checkpoint
