"""Trackers by name: Weights & Biases and MLflow. Neither uses a network that the user has not asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from rlprune.agents.tracking import mlflow_run, wandb_run
from rlprune.agents.tracking.tracker import Sent, Tracker
from rlprune.errors import RLPruneError

TrackerName = Literal["wandb", "mlflow"]
_MODULES: dict[str, ModuleType] = {"wandb": wandb_run, "mlflow": mlflow_run}


def check_tracker(name: str | None) -> None:
    """Make sure that a tracker can be used, before anything long begins.

    Raises:
        MissingExtraError: its package is not installed.
        RLPruneError: there is none of that name.
    """
    if name is None:
        return
    if name not in _MODULES:
        raise RLPruneError(f"track={name!r}: give {' or '.join(map(repr, _MODULES))}, or None")
    _MODULES[name].package()


def open_tracker(name: str, folder: Path, settings: Mapping[str, Any], before: Sent | None) -> Tracker:
    """Begin a run at a tracker, or go on with one.

    Args:
        name: of the tracker.
        folder: of the training, whose name the run gets.
        settings: of the training, as JSON holds them.
        before: what the tracker has of it.

    Raises:
        RLPruneError: the tracker says that it cannot, or it has no such run.
    """
    try:
        tracker: Tracker = _MODULES[name].open_run(folder, settings, before)
    except RLPruneError:
        raise
    except Exception as error:  # of any package below
        reason = " ".join(str(error).split())[:200]
        raise RLPruneError(f"track={name!r}: the run cannot begin there ({type(error).__name__}: {reason})") from error
    return tracker
