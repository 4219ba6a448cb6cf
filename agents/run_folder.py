"""The folder of a training: what may be there before it begins, and what it was begun with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlprune.agents.algorithms.learner import Learner
from rlprune.agents.settings import PolicySettings
from rlprune.agents.warm_start import CHECKPOINT, NOTES, read_from_checkpoint
from rlprune.errors import RLPruneError
from rlprune.policies.named import described
from rlprune.policies.protocol import StemAndBelief
from rlprune.storage.folders import check_target
from rlprune.storage.provenance import check_ours, check_unchanged, plain, read_note
from rlprune.utils.files import check_room

_LEAST_ROOM = 2**20
"""Bytes that a run needs: checkpoint, policy and events of a small policy."""
_UNSAID: dict[str, Any] = {"penalty_range": [], "algorithm": "ppo"}
"""What notes do not say of the first runs, which knew no range, and of those of the default algorithm."""
_FIRST = ("codebook.json", "latency.json", "search.json")
"""What `rlprune train` writes before its notes."""


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
    folder: Path, settings: PolicySettings, learner: Learner, *, resume: bool = False, own: Own = _DEFAULT
) -> None:
    """Make sure that training may write to a folder; the other arguments are those of `train_policy`.

    Args:
        folder: of the run.
        settings: of the run.
        learner: its algorithm, with further arguments.
        resume: whether a checkpoint that is there is gone on with.
        own: its own reward and observation.

    Raises:
        BundleError: the folder holds a network, a policy or a bundle.
        RLPruneError: the folder holds something else; or a checkpoint is there but not asked to be resumed, or it has
            other settings; or the algorithm cannot learn under the settings.
        WriteError: the disk is full.
    """
    learner.check(settings)
    checkpoint = folder / CHECKPOINT
    check_run_folder(folder)
    check_room(checkpoint, _LEAST_ROOM)
    if not checkpoint.exists():
        return
    if not resume:
        raise RLPruneError(f"{checkpoint} is from an earlier run; resume it, or name another folder")
    before = _UNSAID | read_notes(folder)
    now = {"algorithm": _UNSAID["algorithm"]} | described_in_notes(settings, learner, own)
    check_unchanged(str(checkpoint), before, now, "go back to those, or name another folder")


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
