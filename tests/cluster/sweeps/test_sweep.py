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
from types import SimpleNamespace
from typing import Any

import pytest
from lamp import lamp_settings, make_lamp, make_lamp_data

from rlprune.agents.train import train_policy
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
SETTINGS = lamp_settings(penalty=0.3, total_steps=4096, validate_every=512)
LEARN = ("--network", "net", "--data", "mine:lamps", "--n-candidates", "2", "--begin", "random", "--n-envs", "64")
LEARN += ("--n-steps", "8", "--batch-size", "128", "--total-steps", "4096", "--validate-every", "512")
SWEEP = ("sweep", *LEARN, "--at-once", "2", "--over", "penalty=0.1,0.3", "--out")


def swept(cluster: Cluster, out: Path, over: list[str], *, trials: int | None = None, **more: Any) -> SweepResult:
    settings = replace(SETTINGS, **{name: more.pop(name) for name in [*more] if hasattr(SETTINGS, name)})
    sweep = PolicySweep(out, Space.of(over, settings, trials), settings, learn=train_policy, **more)
    return sweep.run(cluster, make_lamp(), Splits(*map(make_lamp_data, (4, 64, 16, 2))))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connected("local", n_cpus=2) as found:
        yield found


@pytest.fixture(scope="module")
def whole(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a sweep that nothing interrupted, beside its network: the current folder of all these tests."""
    place = tmp_path_factory.mktemp("sweeps")
    save_network(place / "net", make_lamp(), make_lamp_data(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        main([*SWEEP, "whole"])
        yield Path("whole")


def policies(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("trials/*/policy/*"))}


def figures(out: Path) -> list[Any]:
    return [replace(row, seconds=None) for row in SweepResult.load(out / "results.json").rows]


def kill_in(out: Path, name: str, whom: Callable[[int], None]) -> threading.Thread:
    """Kill, once a trial has its first checkpoint; `whom` gets the process that trains it."""

    def wait() -> None:
        trial = out / "trials" / name
        until = time.monotonic() + 300
        while not ((trial / "checkpoint.zip").exists() and (trial / ".lock.owner.json").exists()):
            if time.monotonic() > until:
                return
            time.sleep(0.005)
        whom(json.loads((trial / ".lock.owner.json").read_text())["process"])

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_trials_are_what_a_training_alone_makes_to_the_last_digit(whole: Path) -> None:
    result = SweepResult.load(whole / "results.json")
    assert [row.values for row in result.rows] == [{"penalty": 0.1}, {"penalty": 0.3}] and result.best == result.rows
    assert all(row.kept == "learnt" and 0 <= row.accuracy <= 1 and row.macs_share > 0 for row in result.rows)
    assert (whole / "results.csv").read_text().count("\n") == 3 and result.table().row_count == 2
    before = figures(whole)
    main([*SWEEP, "whole", "--resume"])  # which has nothing left to do
    assert figures(whole) == before
    main(["train", *LEARN, "--penalty", "0.3", "--out", "alone"])
    trial = whole / "trials" / "penalty=0.3"
    for path in (*Path("alone", "policy").iterdir(), *Path("alone").glob("*.json")):
        assert path.read_bytes() == (trial / path.relative_to("alone")).read_bytes()
    assert list(trial.glob("events.*"))


def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint(whole: Path) -> None:
    out, killed = Path("worker"), []
    thread = kill_in(out, "penalty=0.1", lambda process: killed.append(os.kill(process, signal.SIGKILL)))
    main([*SWEEP, "worker"])
    thread.join()
    assert killed and figures(out) == figures(whole) and policies(out) == policies(whole)


def test_a_sweep_whose_driver_is_killed_is_resumed(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path("driver")
    command = [sys.executable, "-m", "rlprune", *SWEEP, "driver"]
    path = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    driver = subprocess.Popen(command, env=path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    kill_in(out, "penalty=0.1", lambda process: driver.kill())
    said = driver.communicate(timeout=300)[1]
    assert driver.returncode == -signal.SIGKILL, said
    assert not (out / "results.json").exists()
    for wrong, what in (([], "holds an earlier sweep; resume it"), (["--resume", "--n-profiles", "3"], "n_profiles")):
        with pytest.raises(SystemExit, match="2"):
            main([*SWEEP, "driver", *wrong])
        assert what in capsys.readouterr().err.replace("--n-profiles", "n_profiles")
    main([*SWEEP, "driver", "--resume"])
    assert figures(out) == figures(whole) and policies(out) == policies(whole)


def test_ranges_are_searched_and_what_a_user_can_change_is_said_once(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    quick = {"total_steps": 512, "at_once": 1, "seed": 3}
    found = swept(cluster, out, ["combine=0..0.5"], trials=2, stop_early=True, **quick)
    rates = [row.values["combine"] for row in found.rows]
    assert len(set(rates)) == 2 and all(0 <= rate <= 0.5 for rate in rates) and len(found.best) == 1
    processes = {path.name.split(".")[-2] for path in out.glob("trials/*/events.*")}
    assert len(processes) == 1  # which does not import everything anew for each policy

    out = tmp_path / "failing"
    strange = out / "trials" / "n_epochs=1" / "strange"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicySweep, "_tuned", lambda sweep, trials: strange.parent.mkdir(parents=True) or found)
        swept(cluster, out, ["n_epochs=1"])  # begun, and nothing trained
    strange.touch()
    with pytest.raises(RLPruneError, match=r"1 of 1 policies could not be trained: .* holds other things"):
        swept(cluster, out, ["n_epochs=1"], resume=True)
    assert "Traceback" not in capsys.readouterr().err
    strange.unlink()
    assert swept(cluster, out, ["n_epochs=1"], resume=True).rows[0].state == "finished"


def test_a_store_that_is_too_small_is_said_in_numbers(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"need \d+ MiB in Ray's object store, .*--object-store-memory \d+"):
        Shared(cluster, make_lamp(), (make_lamp_data(64),), [10**9])


def test_a_store_that_is_full_is_said_in_a_line() -> None:
    class FullError(Exception):
        """What Ray says."""

    def put(_: object) -> None:
        raise FullError("it is full\nand more")

    nodes = [{"Alive": True, "Resources": {"object_store_memory": 1e9}}]
    ray: Any = SimpleNamespace(put=put, nodes=lambda: nodes, exceptions=SimpleNamespace(RayError=FullError))
    with pytest.raises(ClusterError, match=r"takes no more \(it is full\); let what else fills it end, .* make room"):
        Shared(Cluster(ray, "head:1", 1, 1), make_lamp(), (make_lamp_data(64),))


def test_what_cannot_be_compared_is_not_stopped_early(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="another penalty are not comparable"):
        PolicySweep(
            tmp_path,
            Space.of(["penalty=0.1,0.3"], lamp_settings(penalty=0.3)),
            SETTINGS,
            learn=train_policy,
            stop_early=True,
        )
