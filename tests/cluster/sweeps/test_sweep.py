"""Sweeps under the real Ray: policies are those of `rlprune train`, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lamp import lamp_settings, make_lamp, make_lamp_data, train_lamp

from rlprune.cli.main import main
from rlprune.cluster.connection import Cluster, connected
from rlprune.cluster.sweeps.logits import Shared
from rlprune.cluster.sweeps.results import SweepResult
from rlprune.cluster.sweeps.space import Space
from rlprune.cluster.sweeps.sweep import PolicySweep
from rlprune.data.image_set import Splits
from rlprune.errors import ClusterError, RLPruneError, SettingsError
from rlprune.storage.networks import save_network

SUPPORT = Path(__file__).parents[2] / "support"
NETWORK = make_lamp()
NETWORK.specialise(NETWORK.uniform(0).new_tensor([NETWORK.uniform(0).tolist(), NETWORK.full.tolist()]))
SETTINGS = lamp_settings(penalty=0.3, total_steps=4096, validate_every=512)
OVER = ["penalty=0.1,0.3"]
DRIVER = """
import sys
from pathlib import Path
from rlprune.cluster.connection import connected
import test_sweep
with connected("local", n_cpus=2) as cluster:
    test_sweep.swept(cluster, Path(sys.argv[1]))
"""


def splits() -> Splits:
    return Splits(make_lamp_data(4), make_lamp_data(64), make_lamp_data(16), make_lamp_data(2))


def swept(
    cluster: Cluster, out: Path, over: list[str] = OVER, *, trials: int | None = None, **more: Any
) -> SweepResult:
    settings = replace(SETTINGS, **{name: more.pop(name) for name in [*more] if hasattr(SETTINGS, name)})
    return PolicySweep(out, Space.of(over, settings, trials), settings, **more).run(cluster, NETWORK, splits())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connected("local", n_cpus=2) as found:
        yield found


@pytest.fixture(scope="module")
def whole(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nothing interrupted."""
    out = tmp_path_factory.mktemp("sweep") / "whole"
    swept(cluster, out)
    return out


def policies(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("trials/*/policy/*"))}


def figures(out: Path) -> list[Any]:
    return [replace(row, seconds=None) for row in SweepResult.load(out / "results.json").rows]


def kill_in(out: Path, name: str, whom: Callable[[int], None]) -> threading.Thread:
    """Kill, once a trial has its first checkpoint; `whom` gets the process that trains it."""

    def wait() -> None:
        trial = out / "trials" / name
        until = time.monotonic() + 100
        while not ((trial / "checkpoint.zip").exists() and (trial / ".lock.owner.json").exists()):
            if time.monotonic() > until:
                return
            time.sleep(0.005)
        whom(json.loads((trial / ".lock.owner.json").read_text())["process"])

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_trials_are_what_a_training_alone_makes_to_the_last_digit(whole: Path, tmp_path: Path) -> None:
    result = SweepResult.load(whole / "results.json")
    assert [row.values for row in result.rows] == [{"penalty": 0.1}, {"penalty": 0.3}] and result.best == result.rows
    assert all(0 < row.accuracy <= 1 and 0 < row.macs_share < 2 for row in result.rows)
    assert (whole / "results.csv").read_text().count("\n") == 3 and result.table().row_count == 2
    alone = tmp_path / "alone"
    train_lamp(alone, replace(SETTINGS, penalty=0.3), codebook=NETWORK.codebook)
    trial = whole / "trials" / "penalty=0.3"
    for path in (alone / "policy").iterdir():
        assert path.read_bytes() == (trial / "policy" / path.name).read_bytes()
    assert list(trial.glob("events.*")) and (trial / "codebook.json").exists()


def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint(
    cluster: Cluster, whole: Path, tmp_path: Path
) -> None:
    out, killed = tmp_path / "out", []
    thread = kill_in(out, "penalty=0.1", lambda process: killed.append(os.kill(process, signal.SIGKILL)))
    swept(cluster, out)
    thread.join()
    assert killed and figures(out) == figures(whole) and policies(out) == policies(whole)


def test_a_sweep_whose_driver_is_killed_is_resumed(cluster: Cluster, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = os.pathsep.join([str(SUPPORT), str(Path(__file__).parent)])
    command = [sys.executable, "-c", DRIVER, str(out)]
    driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True)
    kill_in(out, "penalty=0.1", lambda process: driver.kill())
    said = driver.communicate(timeout=110)[1]
    assert driver.returncode == -signal.SIGKILL, said
    assert not (out / "results.json").exists()
    with pytest.raises(RLPruneError, match="holds an earlier sweep; resume it"):
        swept(cluster, out)
    with pytest.raises(RLPruneError, match="over"):
        swept(cluster, out, ["penalty=0.1,0.2"], resume=True)
    swept(cluster, out, resume=True)
    assert figures(out) == figures(whole) and policies(out) == policies(whole)


def test_ranges_are_searched_and_what_a_user_can_change_is_said_once(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    quick = {"total_steps": 512, "at_once": 1, "seed": 3}
    found = swept(cluster, out, ["combine=0..0.5"], trials=2, stop_early=True, **quick)
    rates = [row.values["combine"] for row in found.rows]
    assert len(set(rates)) == 2 and all(0 <= rate <= 0.5 for rate in rates) and len(found.best) == 1

    out = tmp_path / "failing"
    strange = out / "trials" / "n_epochs=1" / "strange"
    trial = out / "trials" / "n_epochs=1"
    space = Space.of(["n_epochs=1"], SETTINGS)
    sweep = PolicySweep(out, space, SETTINGS, resume=True)
    sweep.check()
    (out / "sweep.json").parent.mkdir()
    (out / "sweep.json").write_text(json.dumps(sweep._made_of(NETWORK, splits())))
    trial.mkdir(parents=True)
    strange.touch()
    with pytest.raises(RLPruneError, match=r"1 of 1 policies could not be trained: .* holds other things"):
        sweep.run(cluster, NETWORK, splits())
    assert "Traceback" not in capsys.readouterr().err
    strange.unlink()
    assert sweep.run(cluster, NETWORK, splits()).rows[0].state == "finished"


def test_a_store_that_is_too_small_is_said_in_numbers(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"need \d+ MiB in Ray's object store, .*--object-store-memory \d+"):
        Shared(cluster, NETWORK, (make_lamp_data(64),), [10**9])


def test_what_cannot_be_compared_is_not_stopped_early(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="another penalty are not comparable"):
        PolicySweep(tmp_path, Space.of(OVER, SETTINGS), SETTINGS, stop_early=True)


def test_the_command_line_refuses_before_anything_begins(
    apart: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_network("net", make_lamp(), make_lamp_data(4))
    command = ["sweep", "--network", "net", "--data", "mine:lamps", "--out", "out"]
    for more, said in (
        (["--over", "penalty=x"], "rlprune: error: --over='penalty=x': penalty='x': give a number"),
        (["--over", "penalty=1..2"], "rlprune: error: trials is missing: give how many"),
        (["--over", "penalty=1,2", "--cluster", "127.0.0.1:1"], "Ray at '127.0.0.1:1' does not answer"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*command, *more])
        assert said in capsys.readouterr().err
    assert not Path("out").exists()
