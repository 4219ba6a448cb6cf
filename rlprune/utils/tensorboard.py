"""TensorBoard's event files: written, and cut back to where a run that was interrupted goes on."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter

from rlprune.utils.progress import Log

_FRAME = 16
"""Bytes of a record beside its content: length, and two checksums."""


def scalar_log(folder: Path, tag: str, run: str = "") -> Log:
    """A log of training that writes every figure as a scalar `tag/figure` over the images seen, into `folder/tag`.

    The file is made with the first figures. What an interrupted run wrote of these images or later ones goes then.

    Args:
        folder: where the folder of the tag is.
        tag: the first part of every scalar's name.
        run: tells runs apart that write into the same folder; no path separators.
    """
    writers: list[SummaryWriter] = []
    suffix = f"-{run}" if run else ""

    def log(n_images: int, figures: dict[str, float]) -> None:
        if not writers:
            alone = drop_events(folder / tag, n_images, suffix)
            writers.append(SummaryWriter(str(folder / tag), filename_suffix=suffix))
            if alone:  # TensorBoard would forget what others have logged there, too
                mark_start(writers[0], n_images)
        for key, value in figures.items():
            writers[0].add_scalar(f"{tag}/{key}", value, n_images)
        writers[0].flush()

    return log


def mark_start(writer: SummaryWriter, first: int) -> None:
    """Let a TensorBoard that is open forget what it has read of a step and of later ones, which come anew.

    What `drop_events` cuts off a file it has in memory already, and would show beside what is written now.

    Args:
        writer: of a new file.
        first: the first step that is written now.
    """
    start = Event(session_log=SessionLog(status=SessionLog.START))
    writer.file_writer.add_event(start, first)  # type: ignore[attr-defined]


def drop_events(folder: Path, first: int, suffix: str = "") -> bool:
    """Cut event files back to the steps before one, and to whole records; files without any of them go.

    Args:
        folder: where they are; folders inside it are left alone.
        first: the first step whose events are dropped.
        suffix: what the names of the run's files end with; the files of other runs are left alone.

    Returns:
        Whether there are no files of other runs.
    """
    pattern = re.compile(r"events\.out\.tfevents\..*\.\d+" + re.escape(suffix))
    found = list(folder.glob("events.out.tfevents.*"))
    ours = [path for path in found if pattern.fullmatch(path.name)]
    for path in ours:
        _cut(path, first)
    return len(ours) == len(found)


def _cut(path: Path, first: int) -> None:
    """Cut an event file back; its events stand in the order of their steps."""
    end = 0
    n_kept = 0
    for content in RawEventFileLoader(str(path)).Load():
        event = Event.FromString(content)
        if event.HasField("summary"):
            if event.step >= first:
                break
            n_kept += 1
        end += len(content) + _FRAME
    if not n_kept:
        path.unlink()
    elif end < path.stat().st_size:
        os.truncate(path, end)
