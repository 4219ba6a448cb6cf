"""Beside TensorBoard: what its files have of a run goes to a tracker, each step once, once a checkpoint has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlprune.agents.tracking.events import EventReader, Figures
from rlprune.agents.tracking.tracker import Sent, Tracker
from rlprune.agents.tracking.trackers import open_tracker
from rlprune.storage.provenance import read_note
from rlprune.utils.files import write_json
from rlprune.utils.notes import say, say_once

NOTE = "tracking.json"
"""What trackers have of a run, in the run's folder."""


class Mirror:
    """Sends a tracker what TensorBoard's files have.

    A tracker that does not answer stops no training: what it has not taken is sent with what comes next.

    Args:
        folder: of the run.
        name: of the tracker.
        tracker: the run there.
    """

    def __init__(self, folder: Path, name: str, tracker: Tracker) -> None:
        self.tracker = tracker
        self._name = name
        self._note = folder / NOTE
        self._reader = EventReader(folder)
        self._waiting: list[Figures] = []
        self._sent = tracker.sent.step
        self._write_note()

    def send(self) -> None:
        """Send what is new; all events of its steps must be there."""
        self._waiting += [each for each in self._reader.read() if each.step > self._sent]
        try:
            while self._waiting:
                self.tracker.log(self._waiting[0])
                self._sent = self._waiting.pop(0).step
        except Exception as error:  # of any package, or of the network
            say_once(f"{self._name} does not take step {self._waiting[0].step} ({error}); it is sent again later")
        self._write_note()

    def end(self, policy: Path | None) -> None:
        """End the run there, with the policy's folder, or without one if training was interrupted."""
        try:
            place = self.tracker.finish(policy)
        except Exception as error:
            say(f"{self._name} did not end the run ({error}); the same with resume tries again")
            return
        if policy is None:
            return
        if self._waiting:
            say(f"{self._name} lacks the figures from step {self._waiting[0].step} on; the same with resume sends them")
        say(f"{self._name} has it as {place}")

    def _write_note(self) -> None:
        sent = Sent(self.tracker.sent.run, self.tracker.sent.place, self._sent)
        write_json(self._note, read_note(self._note) | {self._name: asdict(sent)})


@contextmanager
def tracked(folder: Path, name: str | None, settings: Mapping[str, Any], *, anew: bool) -> Iterator[Callable[[], None]]:
    """Let a tracker have what a training in the block logs: call what this gives after every checkpoint.

    Args:
        folder: of the run, whose events end with the last checkpoint.
        name: of the tracker; None for none.
        settings: of the run, as JSON holds them.
        anew: forget what trackers have of an earlier run in the folder.

    Raises:
        RLPruneError: the tracker cannot begin.
    """
    if anew:
        (folder / NOTE).unlink(missing_ok=True)
    if name is None:
        yield lambda: None
        return
    mirror = Mirror(folder, name, open_tracker(name, folder, settings, _before(folder, name)))
    try:
        mirror.send()
        yield mirror.send
    except BaseException:
        mirror.end(None)
        raise
    mirror.end(folder / "policy")


def _before(folder: Path, name: str) -> Sent | None:
    """What a tracker has of a run already, as the note says it; None if it says nothing that can be used."""
    found = read_note(folder / NOTE).get(name)
    if not isinstance(found, dict) or set(found) != {"run", "place", "step"}:
        return None
    sent = Sent(**found)
    valid = isinstance(sent.run, str) and isinstance(sent.place, str) and isinstance(sent.step, int)
    return sent if valid else None
