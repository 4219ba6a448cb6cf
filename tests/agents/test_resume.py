"""Trainings of policies that are interrupted anywhere end as if they had not been."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from events import read_events
from interruptions import Interrupted, stopping
from lamp import lamp_settings, train_lamp
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from rlprune import startup
from rlprune.agents import train as training
from rlprune.agents.callbacks import ResumeCheckpointCallback
from rlprune.agents.vec_env import KeepRatioVecEnv
from rlprune.errors import OutOfMemoryError, RLPruneError

SUPPORT = Path(__file__).parents[1] / "support"
SMALL: dict[str, Any] = {"n_envs": 16, "n_steps": 8, "batch_size": 64, "total_steps": 1024, "validate_every": 256}
"""Eight rollouts of eight steps; a checkpoint after every second one."""


STOPS: list[tuple[Any, str, bool, int]] = [
    (KeepRatioVecEnv, "step_wait", True, 11),  # before the first checkpoint: it begins anew
    (training, "save_policy", True, 1),
    (ResumeCheckpointCallback, "save", False, 1),
    (ResumeCheckpointCallback, "save", True, 1),
    (KeepRatioVecEnv, "step_wait", True, 1),
    (Logger, "dump", True, 3),
    (PPO, "train", True, 2),
    (PPO, "train", False, 2),
    (ResumeCheckpointCallback, "save", True, 2),
    (training, "save_policy", True, 1),  # the last sweep
    (ResumeCheckpointCallback, "save", False, 1),
    (ResumeCheckpointCallback, "save", True, 1),
]
"""What is interrupted, run after run: whose function, before or after it, and which of its calls."""


def train_interrupted(folder: Path, **arguments: Any) -> None:
    """Train, be interrupted, resume, and so on, to the end."""
    for owner, name, after, number in STOPS:
        torch.manual_seed(number)  # what another process would find
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(owner, name, stopping(getattr(owner, name), after=after, number=number))
            train_lamp(folder, resume=True, **arguments)
    for _ in range(2):  # to the end, and once more, which changes nothing
        train_lamp(folder, resume=True, **arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("change", "ppo"),
    [
        ({"max_passes": 3, "penalty_range": (0.1, 0.5), "control_variate": True}, {"target_kl": 0.01}),
        ({"action": "levels", "validate_every": 100, "total_steps": 1500}, {}),  # a checkpoint after every rollout
        ({"action": "ratios"}, {"use_sde": True, "ent_coef": 0.01}),
    ],
)
def test_it_ends_as_one_that_was_not_interrupted(tmp_path: Path, change: dict[str, Any], ppo: dict[str, Any]) -> None:
    settings = lamp_settings(**SMALL | change)
    train_lamp(tmp_path / "whole", settings, ppo=ppo)
    train_interrupted(tmp_path / "run", settings=settings, ppo=ppo)
    assert contents(tmp_path / "run" / "policy") == contents(tmp_path / "whole" / "policy")
    found = read_events(tmp_path / "run")
    assert found == read_events(tmp_path / "whole")
    where = [event[:2] for event in found]
    assert len(set(where)) == len(where)


def test_a_signal_ends_after_a_rollout_that_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = lamp_settings(**SMALL)
    train_lamp(tmp_path / "whole", settings)
    asked = iter([False, False, True, True, False, True])  # at the first rollouts of each attempt
    monkeypatch.setattr(startup, "asked_to_end", lambda: next(asked, False))
    monkeypatch.setattr(startup, "end", stopping(lambda: None, after=True, number=1))
    for _ in range(3):
        with pytest.raises(Interrupted):
            train_lamp(tmp_path / "run", settings, resume=True)
        monkeypatch.setattr(startup, "end", stopping(lambda: None, after=True, number=1))
    train_lamp(tmp_path / "run", settings, resume=True)
    assert contents(tmp_path / "run" / "policy") == contents(tmp_path / "whole" / "policy")
    assert read_events(tmp_path / "run") == read_events(tmp_path / "whole")


KILLED = f"""
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from lamp import lamp_settings, train_lamp
train_lamp(Path(sys.argv[1]), lamp_settings(**{SMALL | {"total_steps": 4096}}), resume=True)
"""


def test_a_process_that_is_killed_and_resumed_equals_another_one(tmp_path: Path) -> None:
    whole, run = ([sys.executable, "-c", KILLED, str(tmp_path / name)] for name in ("whole", "run"))
    with subprocess.Popen(run, cwd=SUPPORT) as process, subprocess.Popen(whole, cwd=SUPPORT) as other:
        while process.poll() is None and not (tmp_path / "run" / "checkpoint.zip").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        process.kill()
    assert (process.returncode, other.returncode) == (-signal.SIGKILL, 0)
    subprocess.run(run, cwd=SUPPORT, check=True)
    assert contents(tmp_path / "run" / "policy") == contents(tmp_path / "whole" / "policy")
    assert read_events(tmp_path / "run") == read_events(tmp_path / "whole")


@pytest.mark.parametrize("name", ["notes.txt", "events.out.tfevents.1.host.1.0", "settings.json", "policy"])
def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(RLPruneError, match=f"holds other things, such as {name}; name a new or an empty folder"):
        train_lamp(tmp_path, lamp_settings(**SMALL), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_kill_leaves_of_the_first_seconds_is_no_other_thing(tmp_path: Path) -> None:
    for name in (".lock", ".lock.owner.json", "codebook.json", f".settings-{'0' * 32}.json"):
        (tmp_path / name).touch()
    train_lamp(tmp_path, lamp_settings(**SMALL))


def test_a_checkpoint_that_finds_too_little_memory_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_lamp(tmp_path, lamp_settings(**SMALL))

    def lacking(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(PPO, "load", lacking)
    with pytest.raises(
        OutOfMemoryError, match=r"memory ran out while reading .*checkpoint\.zip .*; it stays: give the"
    ):
        train_lamp(tmp_path, lamp_settings(**SMALL), resume=True)
    assert (tmp_path / "checkpoint.zip").exists()
