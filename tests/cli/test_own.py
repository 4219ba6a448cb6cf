"""Rewards and observations of a user's own on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lamp import make_lamp, make_lamp_data

from rlprune.cli.main import main
from rlprune.storage.networks import save_network

REWARD = '{"class": "mine:SquaredCost", "settings": {"weight": 2}}'
STEPS = ("--total-steps", "64", "--n-envs", "8", "--n-steps", "4", "--batch-size", "8", "--validate-every", "32")
TRAIN = ("train", "--network", "net", "--data", "mine:lamps", "--n-candidates", "2", *STEPS)
OWN = ("--reward", REWARD, "--observation", "mine:Brightness")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said where a command is refused, which is one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    said = capsys.readouterr().err.strip()
    assert ended.value.code and "\n" not in said
    return said


def test_a_run_with_an_own_reward_and_observation_is_trained_resumed_exported_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_network("net", make_lamp(), make_lamp_data(4))
    main([*TRAIN, *OWN, "--out", "run"])
    notes = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert notes["reward"] == {"class": "mine:SquaredCost", "settings": {"weight": 2}}
    assert notes["observation"] == {"class": "mine:Brightness", "settings": {"cells": 1}}
    main([*TRAIN, *OWN, "--out", "run", "--resume"])
    assert "reward: {" in refused(capsys, *TRAIN, *OWN[2:], "--out", "run", "--resume")

    export = ("export", "--network", "net", "--policy", "run", "--out", "bundle")
    assert "--observation mine:Brightness" in refused(capsys, *export)
    main([*export, "--observation", "mine:Brightness"])
    evaluate = ("evaluate", "bundle", "--data", "mine:lamps", "--no-controls")
    assert "--observation mine:Brightness" in refused(capsys, *evaluate)
    main([*evaluate, "--observation", "mine:Brightness", "--json", "figures.json"])
    assert json.loads((tmp_path / "figures.json").read_text())["n_images"] > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ((*TRAIN, "--out", "run", "--reward", "mine:Nothing"), "'mine:Nothing' failed with AttributeError"),
        ((*TRAIN, "--out", "run", "--observation", "{no"), "observation is '{no', which is no JSON"),
        (("bench", "env", "--observation", "mine:Doubt"), "--observation=mine:Doubt is for bundles"),
        (("predict", "--onnx", "x.onnx", "a.png", "--observation", "mine:Doubt"), "a file of ONNX has it inside"),
        (("evaluate", "--model", "m", "--data", "d", "--observation", "mine:Doubt"), "is for a bundle; name one"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    tmp_path: Path,
    wrong: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *wrong)
    assert list(tmp_path.iterdir()) == []
