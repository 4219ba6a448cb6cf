"""A training that is asked to end after every second step."""

from __future__ import annotations

import pytest

from rlprune import startup


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
