"""Trackers get what TensorBoard has, each step once; and every tag of a run is in the table."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from lamp import lamp_settings, train_lamp
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from trackers import Mlflow, Wandb

from rlprune.agents import callbacks
from rlprune.agents.callbacks import ResumeCheckpointCallback
from rlprune.agents.tracking import NETWORK_TAGS, TAGS, mirror
from rlprune.errors import MissingExtraError, RLPruneError

SETTINGS = lamp_settings(n_envs=16, n_steps=8, batch_size=64, total_steps=512, validate_every=256, max_passes=2)


class Interrupted(BaseException):
    pass


def found_in(folder: Path) -> list[tuple[str, str, int, Any]]:
    """Tag, kind, step and value of everything in a run's files."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in map(Event.FromString, RawEventFileLoader(str(path)).Load()):
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                kind = {"simple_value": "scalar", "histo": "histogram", "image": "image"}.get(
                    value.WhichOneof("value") or "", "settings" if plugin == "hparams" else "unknown"
                )
                tag = "_hparams_" if kind == "settings" else value.tag
                found.append((tag, kind, event.step, value.simple_value))
    return found


def interrupt(monkeypatch: pytest.MonkeyPatch, folder: Path, owner: Any, name: str, **arguments: Any) -> None:
    """Train until a function of an object has been called."""
    original = getattr(owner, name)

    def call(*given: Any, **named: Any) -> None:
        original(*given, **named)
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(owner, name, call)
        train_lamp(folder, SETTINGS, **arguments)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    module = Mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")  # which rlprune would set otherwise
    return module


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return module


def test_every_tag_of_a_run_is_in_the_table_and_every_tag_of_the_table_in_a_run(tmp_path: Path) -> None:
    train_lamp(tmp_path, SETTINGS)
    found = {(tag, kind) for tag, kind, *_ in found_in(tmp_path)}
    assert {each for each in found if sum(tag.fits(*each) for tag in TAGS) != 1} == set()
    assert NETWORK_TAGS[-1].fits("tuning/network-0/profile_3", "scalar")
    always = [tag for tag in TAGS if not tag.when]
    assert [tag.name for tag in always if not any(tag.fits(*each) for each in found)] == []


def test_mlflow_gets_each_figure_once_and_the_policy(
    tmp_path: Path, mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    interrupt(monkeypatch, folder, callbacks, "save_agent", track="mlflow")  # before anything is sent
    mlflow.failing = 1
    interrupt(monkeypatch, folder, mlflow, "log_batch", track="mlflow", resume=True)  # sent, but not noted
    train_lamp(folder, SETTINGS, track="mlflow", resume=True)
    train_lamp(folder, SETTINGS, track="mlflow", extend=128)
    (run,) = mlflow.runs.values()
    scalars = [(tag, step, value) for tag, kind, step, value in found_in(folder) if kind == "scalar"]
    assert sorted((each.key, each.step, each.value) for each in run["metrics"]) == sorted(scalars)
    assert run["params"]["penalty"] == "0.2" and run["name"] == "run" and run["status"] == "FINISHED"
    assert json.loads(run["tags"]["extensions"]) == [{"begun_at": 512, "steps": 128}]
    assert run["files"]["validation/easy_and_hard/0000000640.png"] == (800, 224)
    policy = {f"policy/{path.name}": path.read_bytes() for path in (folder / "policy").iterdir()}
    assert policy.items() <= run["files"].items()
    assert "mlflow does not take step 128 (the store does not answer); it is sent" in capsys.readouterr().err
    mlflow.runs.clear()
    with pytest.raises(RLPruneError, match=r"has no run run-0; .*: set MLFLOW_TRACKING_URI to that, or remove"):
        train_lamp(folder, SETTINGS, track="mlflow", extend=128)


def test_wandb_is_offline_and_every_folder_of_it_has_the_whole_curve(
    tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(monkeypatch, tmp_path, mirror.Mirror, "send", track="wandb")
    interrupt(monkeypatch, tmp_path, ResumeCheckpointCallback, "save", track="wandb", resume=True)
    train_lamp(tmp_path, SETTINGS, track="wandb", resume=True)
    first, second, last = wandb.runs
    assert all((run.given["mode"], run.given["resume"]) == ("offline", None) for run in wandb.runs)
    assert second.given["id"] == last.given["id"] and (first.exit_code, second.exit_code, last.exit_code) == (1, 1, 0)
    every = {(tag, step) for tag, kind, step, _ in found_in(tmp_path) if kind != "settings"}
    assert {(tag, step) for step, row in last.rows.items() for tag in row} == every
    spent = last.rows[512]["validation/active_macs_per_image"]
    assert spent == 16 and last.given["config"]["penalty"] == 0.2
    assert last.artifacts[0].files == {path.name for path in (tmp_path / "policy").iterdir()}
    assert f"upload it with: wandb sync {Path(last.dir).parent}" in capsys.readouterr().err


def test_wandb_online_gets_what_it_lacks(tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch) -> None:
    train_lamp(tmp_path, SETTINGS)
    monkeypatch.setenv("WANDB_MODE", "online")
    train_lamp(tmp_path, SETTINGS, resume=True, track="wandb")  # of a run that is finished
    train_lamp(tmp_path, SETTINGS, extend=128, track="wandb")
    before, after = wandb.runs
    assert after.given["resume"] == "allow" and after.given["id"] == before.given["id"]
    assert (list(before.rows), list(after.rows)) == ([128, 256, 384, 512], [640])


def test_a_tracker_that_is_not_there_is_said_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RLPruneError, match=r"^track='neptune': give 'wandb' or 'mlflow', or None$"):
        train_lamp(tmp_path / "run", SETTINGS, track="neptune")
    if importlib.util.find_spec("wandb") is None:
        (tmp_path / "wandb").mkdir()  # where its runs lie by default
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
        with pytest.raises(MissingExtraError, match=r"pip install 'rlprune\[wandb\]'"):
            train_lamp(tmp_path / "run", SETTINGS, track="wandb")
        sys.modules.pop("wandb", None)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_begin_is_one_line(
    tmp_path: Path, mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise ConnectionError("nobody\nanswers")

    monkeypatch.setattr(mlflow, "create_experiment", refuse)
    message = r"^track='mlflow': the run cannot begin there \(ConnectionError: nobody answers\)$"
    with pytest.raises(RLPruneError, match=message):
        train_lamp(tmp_path, SETTINGS, track="mlflow")


def test_a_file_says_where_it_starts_so_that_a_tensorboard_that_is_open_forgets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, tmp_path, ResumeCheckpointCallback, "save")
    train_lamp(tmp_path, SETTINGS, resume=True)
    starts = []
    for path in sorted(tmp_path.glob("events.out.tfevents.*")):
        for event in map(Event.FromString, RawEventFileLoader(str(path)).Load()):
            starts += [event.step] * (event.session_log.status == SessionLog.START)
    assert starts == [0, 257]
