"""What TensorBoard's event files hold."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader


def read_events(folder: Path) -> list[tuple[str, int, str]]:
    """Tag, step and value of every event below a folder, sorted, but for times; of hyperparameters the tag alone."""
    found = [
        (value.tag, event.step, "" if value.tag.startswith("_hparams_") else repr(value))
        for path in folder.rglob("events.out.tfevents.*")
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if not value.tag.startswith("time/")
    ]
    return sorted(found)
