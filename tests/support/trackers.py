"""Stand-ins for the packages of trackers, which keep what they are given: as much of them as rlprune calls."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class Mlflow(ModuleType):
    """MLflow, with one store; `failing` calls of `log_batch` raise."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.entities = SimpleNamespace(Metric=Metric, Param=Param)
        self.experiments: dict[str, SimpleNamespace] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.failing = 0
        self.MlflowClient = lambda: self
        self.tracking_uri = "sqlite:///mlflow.db"

    def get_experiment_by_name(self, name: str) -> Any:
        return self.experiments.get(name)

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = SimpleNamespace(experiment_id="7")
        return "7"

    def create_run(self, experiment: str, run_name: str) -> Any:
        run = f"run-{len(self.runs)}"
        self.runs[run] = {"name": run_name, "status": "RUNNING", "metrics": [], "params": {}, "files": {}, "tags": {}}
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def get_run(self, run: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(metrics={each.key: 0 for each in self.runs[run]["metrics"]}))

    def get_metric_history(self, run: str, key: str) -> list[Metric]:
        return [each for each in self.runs[run]["metrics"] if each.key == key]

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        if metrics and self.failing:
            self.failing -= 1
            raise ConnectionError("the store does not answer")
        self.runs[run]["metrics"] += metrics
        for param in params:
            assert self.runs[run]["params"].setdefault(*param) == param.value  # MLflow's never change

    def log_image(self, run: str, image: Any, artifact_file: str) -> None:
        self.runs[run]["files"][artifact_file] = image.size

    def log_artifacts(self, run: str, folder: str, name: str) -> None:
        self.runs[run]["files"] |= {f"{name}/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}

    def set_tag(self, run: str, key: str, value: str) -> None:
        self.runs[run]["tags"][key] = value

    def update_run(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status

    def set_terminated(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status


class WandbRun:
    """A run of Weights & Biases, which refuses steps that go back."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.dir = f"{given['dir']}/wandb/offline-{given['id']}/files"
        self.rows: dict[int, dict[str, Any]] = {}
        self.artifacts: list[Any] = []
        self.exit_code: int | None = None

    def log(self, values: dict[str, Any], step: int) -> None:
        assert step > max(self.rows, default=-1)
        self.rows[step] = values

    def log_artifact(self, artifact: Any) -> None:
        self.artifacts.append(artifact)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class Artifact:
    def __init__(self, name: str, type: str) -> None:
        self.name, self.type, self.files = name, type, set[str]()

    def add_file(self, path: str) -> None:
        self.files.add(Path(path).name)


class Wandb(ModuleType):
    """Weights & Biases."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[WandbRun] = []
        self.Artifact = Artifact
        self.Settings = dict
        self.Image = lambda picture: picture.size
        self.Histogram = lambda np_histogram: np.asarray(np_histogram[0]).sum()

    def init(self, **given: Any) -> WandbRun:
        self.runs.append(WandbRun(given))
        return self.runs[-1]
