"""Runs at MLflow: where MLFLOW_TRACKING_URI says, else in MLflow's own place in the current folder."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from rlprune.agents.tracking.events import Figures
from rlprune.agents.tracking.tracker import Sent
from rlprune.errors import RLPruneError
from rlprune.utils.imports import require

_AT_ONCE = 100
"""Settings in a call, at most."""


def package() -> Any:
    """The package.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # or it would tell its makers what it is used for
    return require("mlflow", "mlflow")


class MlflowRun:
    """A run at MLflow, which has no histograms: those are left out.

    Args:
        mlflow: the package.
        client: an `MlflowClient`.
        sent: what it had.
        known: the tags and steps that it has.
    """

    def __init__(self, mlflow: Any, client: Any, sent: Sent, known: set[tuple[str, int]]) -> None:
        self.sent = sent
        self._mlflow = mlflow
        self._client = client
        self._known = known

    def log(self, figures: Figures) -> None:
        """Take all figures of a step; those that it has already are left out."""
        metric, at = self._mlflow.entities.Metric, round(figures.time * 1000)
        known = {key for key, step in self._known if step == figures.step}
        named = {_key(tag): value for tag, value in figures.scalars.items()}
        new = [metric(key, value, at, figures.step) for key, value in named.items() if key not in known]
        for tag, content in figures.pictures.items():
            file = f"{_key(tag)}/{figures.step:010d}.png"
            self._client.log_image(self.sent.run, Image.open(io.BytesIO(content)), artifact_file=file)
        if new:
            self._client.log_batch(self.sent.run, metrics=new)

    def finish(self, policy: Path | None) -> str:
        """End it, with the policy as an artifact."""
        if policy is not None:
            self._client.log_artifacts(self.sent.run, str(policy), "policy")
        self._client.set_terminated(self.sent.run, "KILLED" if policy is None else "FINISHED")
        return f"run {self.sent.run} of {self.sent.place}"


def open_run(folder: Path, settings: Mapping[str, Any], before: Sent | None) -> MlflowRun:
    """Begin a run, or go on with one.

    Raises:
        RLPruneError: there is no such run.
    """
    mlflow = package()
    client = mlflow.MlflowClient()
    place = _absolute(client.tracking_uri)
    if before is None:
        sent = Sent(_new_run(mlflow, client, folder, settings), place)
    else:
        sent = Sent(before.run, place, before.step)
        _go_on(client, before, place)
    if settings.get("extensions"):
        client.set_tag(sent.run, "extensions", json.dumps(settings["extensions"]))
    known = set() if before is None else _known(client, sent.run)
    return MlflowRun(mlflow, client, sent, known)


def _new_run(mlflow: Any, client: Any, folder: Path, settings: Mapping[str, Any]) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "rlprune"
    experiment = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if not experiment:
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
    run = str(client.create_run(experiment, run_name=folder.resolve().name).info.run_id)
    params = [mlflow.entities.Param(key, str(value)) for key, value in settings.items() if key != "extensions"]
    for first in range(0, len(params), _AT_ONCE):
        client.log_batch(run, params=params[first : first + _AT_ONCE])
    return run


def _go_on(client: Any, before: Sent, place: str) -> None:
    """Make sure that a run is there, and open it again.

    Raises:
        RLPruneError: it is not.
    """
    try:
        client.get_run(before.run)
    except Exception as error:
        raise RLPruneError(
            f"track='mlflow': {place} has no run {before.run}; it was in {before.place}: set MLFLOW_TRACKING_URI to "
            "that, or remove tracking.json from the run's folder to log it anew"
        ) from error
    client.update_run(before.run, status="RUNNING")


def _known(client: Any, run: str) -> set[tuple[str, int]]:
    """The tags and steps of all figures that a run has."""
    keys = client.get_run(run).data.metrics
    return {(key, metric.step) for key in keys for metric in client.get_metric_history(run, key)}


def _key(tag: str) -> str:
    """A tag in the characters that MLflow takes."""
    return re.sub(r"[^\w\-./ ]", "_", tag, flags=re.ASCII)


def _absolute(place: str) -> str:
    """Where MLflow's own place is, which it names from the current folder."""
    kind, _, path = place.partition("sqlite:///")
    return f"sqlite:///{Path(path).resolve()}" if not kind and path else place
