"""Trainings that end early: after every second step, at the first checkpoint, or around a call of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlprune import startup
from rlprune.agents.callbacks import ResumeCheckpointCallback


class Interrupted(Exception):
    """Stands for the end of the process."""


def every_second_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a signal come in every second step; the training then raises `Interrupted`."""
    steps: list[int] = []

    def asked() -> bool:
        steps.append(len(steps))
        return len(steps) % 2 == 0

    def end() -> None:
        raise Interrupted

    monkeypatch.setattr(startup, "asked_to_end", asked)
    monkeypatch.setattr(startup, "end", end)


def at_the_first_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every training of a policy raise `Interrupted` after it has saved its first checkpoint."""
    save = ResumeCheckpointCallback.save

    def interrupting(self: ResumeCheckpointCallback) -> None:
        save(self)
        raise Interrupted

    monkeypatch.setattr(ResumeCheckpointCallback, "save", interrupting)


def stopping(original: Callable[..., Any], *, after: bool, number: int) -> Callable[..., Any]:
    """A function that raises `Interrupted` before or after one of its calls."""
    calls: list[object] = []

    def call(*given: Any, **named: Any) -> Any:
        calls.append(given)
        last = len(calls) == number
        result = original(*given, **named) if after or not last else None
        if last:
            raise Interrupted
        return result

    return call
