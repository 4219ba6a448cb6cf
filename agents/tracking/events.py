"""TensorBoard's files of a run: where Stable-Baselines3 writes them, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from rlprune.utils.tensorboard import drop_events, mark_start


def event_logger(folder: Path, first: int) -> Logger:
    """Where an agent logs its figures, in a new file; those of a step and later ones go from the files that there are.

    Args:
        folder: of the run.
        first: the first step that is written now.
    """
    drop_events(folder, first)
    output = TensorBoardOutputFormat(str(folder))
    mark_start(output.writer, first)
    return Logger(str(folder), [output])


@dataclass
class Figures:
    """All that a run logged at one step, by tags.

    Attributes:
        step: environment steps.
        time: when, in seconds since 1970.
        scalars: finite or not.
        histograms: the edges of the bins, one more than bins, ascending; and how many values each bin has.
        pictures: PNG files.
    """

    step: int
    time: float = 0.0
    scalars: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def take(self, value: Summary.Value) -> None:
        """Add what a value of an event says; settings and the like are left."""
        if value.HasField("simple_value"):
            self.scalars[value.tag] = value.simple_value
        elif value.HasField("histo"):
            counts = [*value.histo.bucket][1:]  # the first is of what is left of the first edge: nothing
            self.histograms[value.tag] = ([*value.histo.bucket_limit], counts)
        elif value.HasField("image"):
            self.pictures[value.tag] = value.image.encoded_image_string


class EventReader:
    """Reads what the files of a run have, and later what they have got since.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaders: dict[Path, RawEventFileLoader] = {}

    def read(self) -> list[Figures]:
        """What is new, in the order of the steps."""
        found: dict[int, Figures] = {}
        for event in self._events():
            for value in event.summary.value:
                found.setdefault(event.step, Figures(event.step, event.wall_time)).take(value)
        return [found[step] for step in sorted(found)]

    def _events(self) -> Iterator[Event]:
        for path in sorted(self.folder.glob("events.out.tfevents.*")):
            loader = self._loaders.setdefault(path, RawEventFileLoader(str(path)))
            yield from map(Event.FromString, loader.Load())
