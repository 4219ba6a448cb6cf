from __future__ import annotations

from pathlib import Path

import pytest
from events import read_events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlprune.utils.tensorboard import drop_events, scalar_log


def steps(folder: Path) -> list[int]:
    return [step for _, step, _ in read_events(folder)]


def test_a_log_that_goes_on_replaces_what_an_interrupted_one_wrote_further(tmp_path: Path) -> None:
    first = scalar_log(tmp_path, "adapt")
    for n in (10, 20, 30):
        first(n, {"loss": 1.0})
    again = scalar_log(tmp_path, "adapt")
    for n in (20, 30, 40):
        again(n, {"loss": 1.0})
    assert steps(tmp_path) == [10, 20, 30, 40]
    scalar_log(tmp_path, "adapt")(10, {"loss": 1.0})  # anew
    assert steps(tmp_path) == [10] and len(list((tmp_path / "adapt").iterdir())) == 1


@pytest.mark.parametrize("other", ["0-a", "b", ""])
def test_logs_of_other_runs_in_the_same_folder_stay(tmp_path: Path, other: str) -> None:
    for run in ("a", other, "a"):
        scalar_log(tmp_path, "adapt", run)(10, {"loss": 1.0})
    assert steps(tmp_path) == [10, 10]
    shown = EventAccumulator(str(tmp_path / "adapt")).Reload().Scalars("adapt/loss")
    assert [event.step for event in shown] == [10, 10]  # no file lets TensorBoard forget another one's


@pytest.mark.parametrize("left", [1, 12, 20, 40])
def test_a_record_that_a_kill_tore_goes(tmp_path: Path, left: int) -> None:
    scalar_log(tmp_path, "adapt")(10, {"loss": 1.0})
    (path,) = (tmp_path / "adapt").iterdir()
    whole = path.read_bytes()
    scalar_log(tmp_path, "other")(20, {"loss": 1.0})
    (other,) = (tmp_path / "other").iterdir()
    path.write_bytes(whole + other.read_bytes()[-44:][:left])
    drop_events(tmp_path / "adapt", 15)
    assert path.read_bytes() == whole


def test_a_file_without_events_goes(tmp_path: Path) -> None:
    scalar_log(tmp_path, "adapt")(10, {"loss": 1.0})
    (tmp_path / "adapt" / "events.txt").touch()
    drop_events(tmp_path / "adapt", 0)
    assert [path.name for path in (tmp_path / "adapt").iterdir()] == ["events.txt"]
