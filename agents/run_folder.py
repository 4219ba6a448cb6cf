"""The folder of a training: what may be there before it begins, and what it was begun with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlprune.agents.algorithms.learner import Learner
from rlprune.agents.settings import PolicySettings
from rlprune.agents.warm_start import CHECKPOINT, NOTES, read_attributes, read_from_checkpoint
from rlprune.errors import RLPruneError
from rlprune.policies.named import described
from rlprune.policies.protocol import StemAndBelief
from rlprune.storage.folders import check_target
from rlprune.storage.provenance import check_ours, check_unchanged, plain, read_note
from rlprune.utils.files import check_room
from rlprune.utils.finite import check_whole

_LEAST_ROOM = 2**20
"""Bytes that a run needs: checkpoint, policy and events of a small policy."""
_UNSAID: dict[str, Any] = {"penalty_range": [], "algorithm": "ppo", "begin": "random"}
"""What notes do not say of the first runs, without ranges and cascades, and of those of the default algorithm."""
_MOST_STEPS = 2**31 - 1
_FIRST = ("codebook.json", "latency.json", "search.json")
"""What `rlprune train` writes before its notes."""
_CURE = "go back to those, or name another folder"


@dataclass(frozen=True)
class Extension:
    """Environment steps that were added to a finished run.

    Attributes:
        begun_at: environment steps that the run had.
        steps: how many more it is to have; whole rollouts, so it may get some more.
    """

    begun_at: int
    steps: int


@dataclass(frozen=True)
class Own:
    """What a run has in place of the default reward and the default observation.

    Attributes:
        reward: an object as `rlprune.envs.rewards.Reward` has it; None for the default one.
        observation: an object as `rlprune.policies.protocol.Observation` has it; None for the default one.
    """

    reward: Any = None
    observation: Any = None

    @property
    def observation_class(self) -> type | None:
        """The class that the run's stored policies need to be loaded; None for the default one."""
        return None if type(self.observation) in (type(None), StemAndBelief) else type(self.observation)

    def described(self) -> dict[str, Any]:
        """Both, as a run's notes hold them."""
        return {name: described(name, value) for name, value in vars(self).items()}


_DEFAULT = Own()


def check_run(
    folder: Path,
    settings: PolicySettings,
    learner: Learner,
    *,
    resume: bool = False,
    extend: int | None = None,
    own: Own = _DEFAULT,
) -> None:
    """Make sure that training may write to a folder; the other arguments are those of `train_policy`.

    Args:
        folder: of the run.
        settings: of the run.
        learner: its algorithm, with further arguments.
        resume: whether a checkpoint that is there is gone on with.
        extend: environment steps that are added to a finished run.
        own: its own reward and observation.

    Raises:
        BundleError: the folder holds a network, a policy or a bundle.
        RLPruneError: the folder holds something else; or a checkpoint is there but not asked to be resumed or extended,
            or it has other settings; or there is no finished run to extend; or the algorithm cannot learn under the
            settings.
        SettingsError: `extend` is no number of steps.
        WriteError: the disk is full.
    """
    learner.check(settings)
    settings = settled_in(folder, settings, learner, own)
    if extend is not None:
        check_whole(least=1, extend=extend)
    checkpoint = folder / CHECKPOINT
    check_run_folder(folder)
    check_room(checkpoint, _LEAST_ROOM)
    if not checkpoint.exists():
        if extend is not None:
            raise RLPruneError(f"extend={extend}: {folder} has no run that could be extended; train one there first")
        return
    if not resume and extend is None:
        raise RLPruneError(f"{checkpoint} is from an earlier run; resume it, or name another folder")
    before = _UNSAID | read_notes(folder)
    now = {"algorithm": _UNSAID["algorithm"]} | described_in_notes(settings, learner, own)
    longer = before.get("total_steps") != settings.total_steps
    cure = f"{_CURE}{'; extend adds steps to a finished run' if longer else ''}"
    check_unchanged(str(checkpoint), before, now, cure)
    extensions_of(folder, settings, extend, resume=resume)


def settled_in(folder: Path, settings: PolicySettings, learner: Learner, own: Own = _DEFAULT) -> PolicySettings:
    """Settings that say what the agent of a folder's run begins as, or began as.

    Raises:
        RLPruneError: a cascade is asked for, and cannot be.
    """
    before = read_notes(folder) if (folder / CHECKPOINT).exists() else None
    return learner.settled(settings, before, own_observation=own.observation_class is not None)


def extensions_of(
    folder: Path, settings: PolicySettings, extend: int | None = None, *, resume: bool = False
) -> list[Extension]:
    """The extensions of a folder's run, with the one that is asked for.

    With `resume`, the same command may be given again: an extension that was begun is not begun twice.

    Args:
        folder: of a run that has a checkpoint.
        settings: of the run.
        extend: environment steps to add; None: no more than there are.
        resume: go on with what was interrupted.

    Raises:
        RLPruneError: the run that is to be extended, or its last extension, is not finished; or the notes are damaged.
    """
    found = _read_extensions(folder)
    n_done = read_attributes(folder / CHECKPOINT).get("num_timesteps")
    if extend is None or not isinstance(n_done, int):  # what loads the checkpoint says what is wrong with it
        return found
    total = total_steps(settings, found)
    last = found[-1].steps if found else None
    if n_done < total and not (resume and extend == last):
        what, how = ("run", "") if last is None else (f"extension by {last} steps", f", or with extend={last}")
        raise RLPruneError(
            f"extend={extend}: the {what} in {folder} was interrupted at {n_done} of {total} steps; resume it first, "
            f"without extend{how}"
        )
    if resume and extend == last:
        return found
    check_whole(most=_MOST_STEPS - n_done, extend=extend)
    return [*found, Extension(n_done, extend)]


def total_steps(settings: PolicySettings, extensions: Sequence[Extension]) -> int:
    """Environment steps at which a run ends."""
    return extensions[-1].begun_at + extensions[-1].steps if extensions else settings.total_steps


def extensions_in_notes(extensions: Sequence[Extension]) -> dict[str, Any]:
    """Extensions as a run's notes hold them; nothing if there are none."""
    return {"extensions": [asdict(each) for each in extensions]} if extensions else {}


def _read_extensions(folder: Path) -> list[Extension]:
    """What a run's notes say of its extensions.

    Raises:
        RLPruneError: something that this version does not know.
    """
    try:
        found = [Extension(**each) for each in read_notes(folder).get("extensions", [])]
        check_whole(least=1, **{f"{i}{name}": n for i, each in enumerate(found) for name, n in vars(each).items()})
    except (TypeError, RLPruneError) as error:
        raise RLPruneError(f"the notes on extensions in {folder} are damaged; name another folder") from error
    return found


def check_run_folder(folder: Path) -> None:
    """Make sure that a folder may be filled by a training; asked before a lock is put there, too.

    Raises:
        BundleError: it holds a network, a policy or a bundle.
        RLPruneError: it holds something else.
    """
    if (folder / "manifest.json").exists():
        check_target(folder, "run")
    check_ours(folder, is_run(folder), _FIRST)


def is_run(folder: Path) -> bool:
    """Whether the training of a policy began in a folder: it has its checkpoint, or its notes."""
    return (folder / CHECKPOINT).exists() or "made_of" in read_note(folder / NOTES)


def described_in_notes(settings: PolicySettings, learner: Learner, own: Own = _DEFAULT) -> dict[str, Any]:
    """The settings of a run as its notes hold them."""
    notes: dict[str, Any] = plain(asdict(settings) | learner.described() | own.described())
    return notes


def read_notes(folder: Path) -> dict[str, Any]:
    """What a run was begun with, as its checkpoint itself has it, or, of older ones, a file beside it; else nothing."""
    return read_from_checkpoint(folder / CHECKPOINT) or read_note(folder / NOTES)
