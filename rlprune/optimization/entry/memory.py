"""What a folder remembers between one process and the next: its plan, times, and what was found out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from rlprune.errors import RLPruneError
from rlprune.optimization.plan import Plan
from rlprune.optimization.subject import Subject
from rlprune.storage.provenance import note_to_compare, read_note
from rlprune.training.distillation import Teacher, cache_teacher_logits
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import atomic_write, write_json

_LEFT_OUT = "left_out.json"


class Memory:
    """Small files of a folder.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def seconds(self) -> float:
        """That all steps have taken so far, in this process and in earlier ones."""
        return float(sum(read_note(self._folder / "seconds.json").values()))

    def spent(self, name: str) -> float:
        """Seconds that a step has taken so far."""
        return float(read_note(self._folder / "seconds.json").get(name, 0.0))

    def count(self, name: str, seconds: float) -> None:
        """Count time that a step has taken."""
        path = self._folder / "seconds.json"
        write_json(path, read_note(path) | {name: self.spent(name) + seconds})

    def leave_out(self, name: str, n: int, n_all: int) -> None:
        """Note that a part of a step was left out for want of time.

        Args:
            name: of the step.
            n: how many of its own steps, in this process; 0 where they are not counted.
            n_all: of how many.
        """
        path = self._folder / _LEFT_OUT
        write_json(path, (found := read_note(path)) | {name: found.get(name, 0.0) + n / max(n_all, 1)})

    def cut_short(self) -> dict[str, float]:
        """Share of each step that was left out, by its name; 0 where that was not counted."""
        return {name: min(float(share), 1.0) for name, share in read_note(self._folder / _LEFT_OUT).items()}

    def once(self, name: str, find: Callable[[], Any], *, file: str | None = None) -> Any:
        """What is found the first time, and kept: measured times, which it may follow from, differ the next time.

        Args:
            name: of what is found.
            find: gives it, as JSON holds it.
            file: name of its file, without suffix, if that is another.

        Raises:
            RLPruneError: the file is damaged.
        """
        path = self._folder / f"{file or name}.json"
        if not path.exists():
            write_json(path, {name: find()})
        cure = "remove it, and it is made again"
        try:
            return note_to_compare(path, dict, cure)[name]
        except KeyError as error:
            raise RLPruneError(f"{path} is damaged (it has no {name}); {cure}") from error


def plan_from(path: Path, plan: Plan) -> Plan:
    """The plan that a folder was begun with; it is written down if there is none yet."""
    if not path.exists():
        write_json(path, asdict(plan))
    return plan_in(path) or plan


def plan_in(path: Path) -> Plan | None:
    """The plan that a folder was begun with, if there is one; `RLPruneError` if it is damaged."""
    if not path.exists():
        return None
    cure = "remove the folder above it, and begin anew"
    found = note_to_compare(path, dict, cure)
    try:
        return Plan(**found | {"penalties": tuple(found["penalties"])})
    except (TypeError, KeyError) as error:
        raise RLPruneError(f"{path} is of another version ({error}); {cure}") from error


def kept_logits(path: Path, dense: nn.Module, subject: Subject, settings: TrainingSettings) -> Teacher:
    """What a teacher says of all kept views, computed once.

    Args:
        path: of the file that keeps it.
        dense: the teacher.
        subject: whose images.
        settings: of the training that follows it.
    """
    if subject.splits.network.streamed:
        return cache_teacher_logits(dense, subject.splits.network, settings, folder=path.with_suffix(""))
    if not path.exists():
        logits = cache_teacher_logits(dense, subject.splits.network, settings)
        with atomic_write(path) as temporary:
            temporary.write_bytes(safetensors.torch.save({"logits": logits.contiguous()}))
    return safetensors.torch.load(path.read_bytes())["logits"]
