"""The folder of a training: what resumes there, and what is left as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import Interrupted, at_the_first_checkpoint
from lamp import SHORT, lamp_settings, make_lamp, make_lamp_data, same, train_lamp
from stable_baselines3 import PPO

from rlprune.agents import KeepRatioVecEnv, callbacks
from rlprune.agents.train import train_policy
from rlprune.errors import InUseError, RLPruneError
from rlprune.storage.policies import load_policy

TESTS = Path(__file__).parents[1] / "support"


def test_what_resumes_compares_with_what_the_checkpoint_itself_says(tmp_path: Path) -> None:
    settings = lamp_settings(penalty=0.2, **SHORT)
    train_lamp(tmp_path, settings)
    notes = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(notes | {"penalty": 0.1}))  # another job's
    with pytest.raises(RLPruneError, match=r"penalty: 0\.2, now 0\.1"):
        train_lamp(tmp_path, replace(settings, penalty=0.1), resume=True)
    train_lamp(tmp_path, settings, resume=True)


def test_a_folder_in_which_another_process_trains_is_left_alone(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from rlprune.utils.locks import hold
with hold(Path({str(tmp_path)!r}), inside=True):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InUseError, match=f"is in use by process {other.pid} on"):
            train_lamp(tmp_path, lamp_settings(**SHORT))
        other.kill()
    assert not (tmp_path / "settings.json").exists()


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = lamp_settings(max_passes=1, pool=1, validate_every=2048)
    at_the_first_checkpoint(monkeypatch)
    with pytest.raises(Interrupted):
        train_lamp(tmp_path, settings)
    monkeypatch.undo()
    assert PPO.load(tmp_path / "checkpoint.zip").num_timesteps == 2048
    policy = train_lamp(tmp_path, settings, resume=True)
    assert PPO.load(tmp_path / "checkpoint.zip").num_timesteps == settings.total_steps
    assert load_policy(tmp_path / "policy").metadata["steps"] == settings.total_steps
    assert same(train_lamp(tmp_path, settings, resume=True), policy)  # over: nothing more is learnt


def test_a_run_from_before_there_were_ranges_goes_on(tmp_path: Path) -> None:
    settings = lamp_settings(**SHORT)
    policy, notes = train_lamp(tmp_path, settings), tmp_path / "settings.json"
    kept = json.loads(notes.read_text())
    del kept["penalty_range"]
    notes.write_text(json.dumps(kept))
    assert same(train_lamp(tmp_path, settings, resume=True), policy)


def test_resuming_what_never_began_begins_it(tmp_path: Path) -> None:
    settings = lamp_settings(**SHORT)
    assert same(train_lamp(tmp_path / "a", settings, resume=True), train_lamp(tmp_path / "b", settings))


def test_a_run_is_neither_overwritten_nor_resumed_under_other_settings(tmp_path: Path) -> None:
    train_lamp(tmp_path, lamp_settings(**SHORT))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RLPruneError, match=r"checkpoint\.zip is from an earlier run; resume it, or name another"):
        train_lamp(tmp_path, lamp_settings(**SHORT))
    with pytest.raises(RLPruneError, match=r"other settings \(penalty: 0\.2, now 0\.4; seed: 0, now 1\); go back to"):
        train_lamp(tmp_path, lamp_settings(penalty=0.4, seed=1, **SHORT), resume=True)
    with pytest.raises(RLPruneError, match=r"""made under other settings \(ppo: '{}', now "{'clip_range': 0\.1}"\)"""):
        train_lamp(tmp_path, lamp_settings(**SHORT), resume=True, ppo={"clip_range": 0.1})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_is_not_resumed_with_another_network_other_images_or_another_codebook(tmp_path: Path) -> None:
    settings, codebook, data = lamp_settings(**SHORT), torch.tensor([[0], [1]]), make_lamp_data(64)
    train_lamp(tmp_path, settings, codebook=codebook)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = make_lamp()
    other.body.get_submodule("linear").weight.data *= 2
    for network, images, book in (
        (other, data, codebook),
        (make_lamp(), make_lamp_data(32), codebook),
        (make_lamp(), data, torch.tensor([[1]])),
        (make_lamp(), data, torch.tensor([[0]])),
    ):
        with pytest.raises(RLPruneError, match=r"checkpoint\.zip was trained on another network, other images or ano"):
            train_policy(network, images, images, tmp_path, settings, codebook=book, resume=True, progress=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    train_policy(make_lamp(), data, data, tmp_path, settings, codebook=codebook, resume=True, progress=False)


def test_a_run_of_an_earlier_version_goes_on_with_other_images_than_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reset, drawn = KeepRatioVecEnv.reset, []

    def noting(self: KeepRatioVecEnv) -> Any:
        observations = reset(self)
        drawn.append([info["image"] for info in self.reset_infos])
        return observations

    at_the_first_checkpoint(monkeypatch)
    monkeypatch.setattr(KeepRatioVecEnv, "reset", noting)
    monkeypatch.setattr(callbacks, "keep_state", lambda agent: None)  # checkpoints of then had none
    settings = lamp_settings(**SHORT)
    for folder in ("a", "b"):
        for resume in (False, True):
            with pytest.raises(Interrupted):
                train_lamp(tmp_path / folder, settings, resume=resume)
    start, resumed, *again = drawn
    assert again == [start, resumed]  # by the seed
    assert sum(one == other for one, other in zip(start, resumed, strict=True)) < 16  # of 64; 1 is expected
    assert capsys.readouterr().out.count("is of an earlier rlprune: the run goes on, but not exactly as") == 2


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train_lamp(tmp_path, lamp_settings(**SHORT))
    (tmp_path / "checkpoint.zip").write_bytes(b"PK")
    with pytest.raises(RLPruneError, match=r"checkpoint\.zip cannot be resumed \(.*\); remove it to start anew"):
        train_lamp(tmp_path, lamp_settings(**SHORT), resume=True)


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from lamp import make_lamp, make_lamp_data
from stable_baselines3 import PPO
from rlprune.agents.callbacks import ResumeCheckpointCallback
from rlprune.agents import KeepRatioVecEnv
from rlprune.envs import World
path = Path(sys.argv[1])
agent = PPO("MlpPolicy", KeepRatioVecEnv(World(make_lamp(), make_lamp_data(4)), 4), device="cpu")
callback = ResumeCheckpointCallback(path, 1)
callback.init_callback(agent)
callback.save()
random.seed(0)
steps = []
for round in range(15):
    child = os.fork()
    if not child:
        for agent.num_timesteps in range(1, 10**6):
            callback.save()
    time.sleep(random.uniform(0.02, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    steps.append(PPO.load(path, device="cpu").num_timesteps)
print(max(steps))
"""


def test_a_kill_while_saving_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "checkpoint.zip")]
    done = subprocess.run(command, cwd=TESTS, check=True, capture_output=True)
    assert int(done.stdout) > 0
