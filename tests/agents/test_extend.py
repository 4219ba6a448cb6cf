"""A finished run goes on: on the same curve, exactly, and only where there is one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from events import read_events
from interruptions import Interrupted, stopping
from lamp import lamp_settings, train_lamp
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlprune.agents import train as training
from rlprune.agents.callbacks import ResumeCheckpointCallback
from rlprune.agents.vec_env import KeepRatioVecEnv
from rlprune.errors import RLPruneError, SettingsError
from rlprune.storage.policies import load_policy

SETTINGS = lamp_settings(n_envs=16, n_steps=8, batch_size=64, total_steps=500, validate_every=256)
"""Four rollouts, 512 steps in the end; a checkpoint after every second."""


def interrupted_at(owner: Any, name: str, number: int, folder: Path, *, after: bool, **arguments: Any) -> None:
    """Train until one of the calls of a function, and fail before or after it."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(owner, name, stopping(getattr(owner, name), after=after, number=number))
        train_lamp(folder, SETTINGS, **arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def curve(folder: Path, tag: str) -> dict[int, float]:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload().Scalars(tag)
    assert len({event.step for event in found}) == len(found)
    return {event.step: event.value for event in found}


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was extended by 500 steps, which are four rollouts more; then by one step, which is one."""
    folder = tmp_path_factory.mktemp("extended")
    train_lamp(folder, SETTINGS)
    before = read_events(folder)
    train_lamp(folder, SETTINGS, extend=500)
    assert set(before) < set(read_events(folder))
    return folder


def test_an_extension_goes_on_with_the_curve_and_the_schedules_of_a_run_of_so_many_steps(extended: Path) -> None:
    assert list(curve(extended, "policy/accuracy")) == list(range(128, 1025, 128))
    assert list(curve(extended, "validation/reward")) == [256, 512, 768, 1024]
    rates = curve(extended, "train/learning_rate")
    assert [rates[step] for step in (640, 1024)] == pytest.approx([SETTINGS.learning_rate * (1 - 640 / 1012), 0])
    metadata = load_policy(extended / "policy").metadata
    assert metadata["steps"] == 1024 and metadata["extensions"] == [{"begun_at": 512, "steps": 500}]
    assert json.loads((extended / "settings.json").read_text())["extensions"] == metadata["extensions"]


def test_killed_anywhere_in_an_extension_it_ends_as_one_that_was_not(tmp_path: Path, extended: Path) -> None:
    train_lamp(tmp_path, SETTINGS)
    interrupted_at(training, "save_agent", 1, tmp_path, after=False, extend=500)  # nothing of it is noted yet
    interrupted_at(training, "write_json", 1, tmp_path, after=False, extend=500)
    for owner, name, number, after in (
        (KeepRatioVecEnv, "step_wait", 3, True),
        (ResumeCheckpointCallback, "save", 1, True),
        (PPO, "train", 1, True),
        (Logger, "dump", 3, True),
        (training, "save_policy", 1, True),
        (ResumeCheckpointCallback, "save", 1, False),
    ):
        torch.manual_seed(number)  # what another process would find
        interrupted_at(owner, name, number, tmp_path, after=after, extend=500, resume=True)
    for arguments in ({}, {"extend": 500}):  # to the end, and once more, which changes nothing
        train_lamp(tmp_path, SETTINGS, resume=True, **arguments)
    assert contents(tmp_path / "policy") == contents(extended / "policy")
    assert read_events(tmp_path) == read_events(extended)
    assert (tmp_path / "settings.json").read_bytes() == (extended / "settings.json").read_bytes()


def test_what_cannot_be_extended_is_refused(tmp_path: Path) -> None:
    def refused(words: str, error: type[Exception] = RLPruneError, **arguments: Any) -> None:
        with pytest.raises(error, match=words):
            train_lamp(tmp_path / "run", **{"settings": SETTINGS} | arguments)

    none = rf"extend=9: {re.escape(str(tmp_path))}/run has no run that could be extended; train one there first"
    refused(none, extend=9)
    refused(none, extend=9, resume=True)
    assert not (tmp_path / "run").exists()
    interrupted_at(ResumeCheckpointCallback, "save", 1, tmp_path / "run", after=True)
    for resume in (False, True):
        refused(r"at 256 of 500 steps; resume it first, without extend$", extend=9, resume=resume)
    train_lamp(tmp_path / "run", SETTINGS, resume=True)
    refused(r"penalty: 0\.2, now 0\.1\)", settings=replace(SETTINGS, penalty=0.1), extend=9)
    refused("from another start", extend=9, start=tmp_path / "run")
    for wrong in (0, -1, True, 1.5, "9", 2**31):
        refused("extend=.*: give a whole number", SettingsError, extend=wrong)
    interrupted_at(Logger, "dump", 2, tmp_path / "run", after=True, extend=300)
    for extend, resume in ((300, False), (9, False), (9, True)):
        refused("the extension by 300 steps in .*, or with extend=300", extend=extend, resume=resume)
    with pytest.raises(RLPruneError, match=r"total_steps: 500, now 600.*; extend adds steps to a finished run"):
        train_lamp(tmp_path / "run", replace(SETTINGS, total_steps=600), resume=True)
