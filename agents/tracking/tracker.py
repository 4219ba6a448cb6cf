"""What a tracker is to a training: it takes the figures of each step, and in the end the policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlprune.agents.tracking.events import Figures


@dataclass(frozen=True)
class Sent:
    """What a tracker has of a run.

    Attributes:
        run: the run's name there.
        place: where it is.
        step: the last step that it has; -1 if none.
    """

    run: str
    place: str
    step: int = -1


class Tracker(Protocol):
    """A run at a tracker."""

    sent: Sent
    """What it had when it was opened."""

    def log(self, figures: Figures) -> None:
        """Take all figures of a step."""

    def finish(self, policy: Path | None) -> str:
        """End it with the policy's folder; without one if training was interrupted.

        Returns:
            Where it is, for the user.
        """
