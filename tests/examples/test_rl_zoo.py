"""RL Zoo trains, enjoys, optimises and records what its YAML files say; where it is not installed, this is skipped."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ZOO = Path(__file__).parents[2] / "examples" / "clients" / "zoo"


@pytest.fixture(scope="module")
def folder(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's files, with another network."""
    if importlib.util.find_spec("rl_zoo3") is None:
        pytest.skip("rl_zoo3 is not installed; `make clients` runs this example where it is")
    folder = tmp_path_factory.mktemp("zoo") / "zoo"
    shutil.copytree(ZOO, folder)
    environments = folder / "environments.yml"
    environments.write_text(environments.read_text().replace("runs/digits/network", str(network)))
    return folder


def zoo(folder: Path, module: str, *arguments: str) -> str:
    """What a program of RL Zoo prints."""
    command = [sys.executable, "-m", f"rl_zoo3.{module}", "--algo", "ppo", "--env", "DigitsProfiles-v0", *arguments]
    environment = os.environ | {"SDL_VIDEODRIVER": "dummy"}
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "rlprune" not in ran.stderr
    return ran.stdout


def test_it_trains_enjoys_optimises_and_records(folder: Path) -> None:
    zoo(folder, "train", "-conf", "ppo.yml", "-n", "512", "--eval-freq", "256", "--seed", "1")
    assert (folder / "logs/ppo/DigitsProfiles-v0_1/best_model.zip").exists()
    assert "Mean reward: " in zoo(folder, "enjoy", "-f", "logs", "-n", "20", "--no-render")
    tuning = ("-optimize", "--n-trials", "2", "--n-startup-trials", "1", "--n-evaluations", "1", "--no-optim-plots")
    assert "Number of finished trials:  2" in zoo(folder, "train", "-conf", "ppo.yml", "-n", "512", *tuning)
    zoo(folder, "record_video", "-f", "logs", "-n", "10", "--exp-id", "1")
    assert list(folder.glob("logs/ppo/DigitsProfiles-v0_1/videos/*.mp4"))
