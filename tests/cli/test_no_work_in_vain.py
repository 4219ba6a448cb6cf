from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from rlprune.cli import resumable
from rlprune.cli.main import main
from rlprune.utils import files

NETWORK = """
import torch
from torch import nn

def plain():
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), *head)

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16, 2)
    def forward(self, x):
        return self.c(torch.special.i0e(self.b(self.a(x).relu()).mean((2, 3))))
"""
RECIPE = """
model = "odd_networks:Odd"
[data]
data = "pets"
[dense]
epochs = 1000
"""
COMMON = ("--data", "pets", "--epochs", "1", "--batch-size", "8")
ADAPT = ("adapt", "--model", "odd_networks:Odd", *COMMON, "--out", "net")
GATE = ("gate", "--model", "odd_networks:Odd", *COMMON, "--out", "net")
TRAIN = ("train", "--network", "n", "--out", "run", "--data", "pets")
PRETRAIN = ("pretrain", "--model", "odd_networks:Odd", *COMMON, "--out")


@pytest.fixture(autouse=True)
def project(apart: None, tmp_path: Path) -> Path:
    (tmp_path / "odd_networks.py").write_text(NETWORK)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (ADAPT, "cannot be stored"),
        (GATE, "cannot be stored"),
        ((*PRETRAIN, "odd_networks.py/w.safetensors"), "cannot be written: "),
        ((*PRETRAIN, "w.safetensors", "--seed", "-1"), "--seed=-1: give a whole number from 0 to 4294967295"),
        ((*PRETRAIN, "w.safetensors", "--device", "meta"), "it cannot be used here"),
        ((*TRAIN, "--ppo", '{"gamma": NaN}'), "is not finite"),
        ((*TRAIN, "--penalty", "inf"), "--penalty=inf"),
        ((*TRAIN, "--ppo", '{"policy_kwargs": 5}'), "ppo has policy_kwargs=5; give an object"),
        ((*TRAIN, "--algorithm", "rainbow"), "--algorithm: algorithm is 'rainbow'; give one of ppo, a2c, trpo"),
        ((*TRAIN, "--algorithm", "dqn", "--action", "levels"), "DQN cannot choose levels, only profiles; give such an"),
        ((*TRAIN, "--algorithm", "a2c", "--arguments", '{"tau": 1}'), "--arguments: A2C has no argument 'tau'; allow"),
        ((*TRAIN, "--policy-kwargs", '{"activation_fn": "GELU"}'), "--policy-kwargs: a PPO with ActorCriticPolicy can"),
        ((*TRAIN, "--callbacks", "no_such:thing"), "--callbacks: 'no_such:thing' failed with ModuleNotFoundError"),
        ((*TRAIN, "--split-seed", "-1"), "--split-seed=-1: give a whole number of 0 or more"),
        ((*PRETRAIN, "w.safetensors", "--views", "1000000000"), "views=1000000000: give 1000 at most"),
        (
            (*PRETRAIN, "w.safetensors", "--padding", "9"),
            "padding=9: images have 8 pixels a side; give",
        ),
        ((*TRAIN, "--penalty", "0.3", "--penalty-range", "0.1", "1"), "--penalty and --penalty-range exclude each"),
        ((*TRAIN, "--latency-batch", "0"), "--latency-batch=0: give a whole number of 1 or more"),
        ((*TRAIN, "--latency-threads", "2"), "--latency-threads=2: it is what is timed with --cost latency; give both"),
        ((*ADAPT, "--latency-batch", "2"), "--latency-batch=2: it is what is timed with --round-to auto; give both or"),
        ((*ADAPT, "--round-to", "0"), "--round-to=0: give a whole number of 1 or more, or one of 'auto'"),
        (("demo", "--out", "digits", "--seed", "-1"), "--seed=-1: give a whole number from 0 to 4294967295"),
        (("evaluate", "b", "--data", "pets", "--seed", "-1"), "--seed=-1: give a whole number from 0 to 4294967295"),
        (("evaluate", "b", "--data", "pets", "--json", "pets"), "pets cannot be written: it is a folder"),
        (("run", "recipe.toml", "--out", "made"), "special_i0e, which cannot be stored"),
        (("run", "recipe.toml", "--seed", "4294967296"), "--seed=4294967296: give a whole number from 0"),
        ((*GATE, "--threshold", "1"), "--threshold=1.0: give a number above 0, below 1"),
        (("predict", "b", "x.png", "--budget", "0.5", "--penalty", "1"), "--budget=0.5 and --penalty=1.0 exclude each"),
        (("predict", "b", "x.png", "--json", "odd_networks.py/x"), "odd_networks.py/x cannot be written: not a dir"),
        (
            (*TRAIN, "--ppo", '{"verbose": "x"}'),
            "--ppo: Stable-Baselines3's PPO does not take {'verbose': 'x'}: give one of 0, 1, 2",
        ),
        (("evaluate", "b", "--data", "pets", "--model", "resnet20"), "--weights is missing: resnet20 alone has random"),
        (("evaluate", "b", "--data", "pets", "--weights", "w"), "--weights=w is for the network that --model names"),
        (("bench", "b", "--model", "resnet20"), "--model=resnet20: a bundle has its own network; leave it out"),
        (("bench", "b", "--image-size", "8"), "--image-size=8 is for images that --data names; name some"),
        (("bench", "b", "--rows", "dens"), "--rows=('dens',): give some of dense, dense folded, "),
        (("bench", "b", "--seconds", "nan"), "--seconds=nan: give a number of 0 or more, and finite"),
        (("bench", "env", "--batch", "1", "2"), "--batch=(1, 2): give a single number of 1 or more, with env"),
        (("bench", "env", "--callers", "4"), "--callers=4 are for bundles; env has none"),
        (("bench", "b", "--callers", "4", "--rows", "dense"), "--rows are timed without callers; with them there are"),
        (("bench", "b", "--callers", "4", "--batch", "1", "2"), "--batch=(1, 2): give a single number of 1 or more, w"),
        (("bench", "b", "--max-wait-ms", "9"), "--max-wait-ms=9 is for --callers; give it too, or leave this out"),
        (
            (*PRETRAIN, "w.safetensors", "--weights", "none.pt", "--data", "no where"),
            "there is no weights file none.pt;",
        ),
        (
            (*ADAPT, "--weights", "recipe.toml", "--data", "no where", "--importance", "l3"),
            "importance 'l3' is unknown; allowed: l1, l2",
        ),
        (
            (*GATE, "--data", "no where", "--teacher", "resnet20", "--teacher-weights", "t.pt"),
            "there is no weights file t.pt; give",
        ),
        (
            (*PRETRAIN, "w.safetensors", "--model", "no_package:net", "--data", "no where"),
            "'no_package:net' failed with",
        ),
        (
            (*PRETRAIN, "w.safetensors", "--preprocess", "resize=8", "--image-size", "8"),
            "--image-size is 8, and preproc",
        ),
        ((*PRETRAIN, "/proc/w.safetensors"), "/proc/w.safetensors cannot be written: no such file or directory; name"),
        ((*TRAIN, "--n-envs", "7"), "--batch-size=512, --n-envs=7, --n-steps=8: give a --batch-size that divides"),
        (("bench", "env", "--device", "cpu:0"), "--device=cpu:0: the environment runs on the CPU; leave it out"),
        (("bench", "b", "--device", "tpu"), "--device='tpu': it cannot be used here ("),
        (("evaluate", "b", "--data", "pets", "--device", "meta"), "--device='meta': it cannot be used here ("),
        ((*TRAIN, "--device", "cpu:0", "--cost", "latency"), "--device=cpu:0: --cost latency measures this machine's"),
        (
            ("evaluate", "b", "--data", "pets", "--no-controls", "--n-candidates", "8"),
            "--n-candidates=8 is for controls, which --no-controls leaves out",
        ),
        (
            ("evaluate", "b", "--data", "pets", "--no-controls", "--static", "a", "c"),
            "--static=a c is for controls, which --no-controls leaves out",
        ),
        (
            ("evaluate", "--model", "resnet20", "--data", "pets", "--static", "a"),
            "--static=a is for a bundle; name one, or leave it out",
        ),
        (("bench", "adapt", "--rows", "all"), "--rows are of bundles; adapt has its own"),
        (("inspect", "--model", "resnet20", "--n-classes", "0"), "--n-classes=0: give a whole number of 1 or more"),
        (("inspect", "--model", "resnet20", "--image-shape", "-1", "8", "8"), "--image-shape=(-1, 8, 8): give a list"),
    ],
)
def test_what_cannot_be_done_is_refused_within_seconds(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    begun = time.process_time()
    with pytest.raises(SystemExit, match="2"):
        main([*arguments])
    said = capsys.readouterr().err
    assert time.process_time() - begun < 5  # of its own: the machine may be busy
    assert message in said and "epoch" not in said and "batch/s" not in said
    assert sorted(path.name for path in project.iterdir() if path.name != "__pycache__") == [
        "odd_networks.py",
        "pets",
        "recipe.toml",
    ]


def test_what_is_wrong_in_several_groups_of_options_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*GATE, "--reduction", "0", "--split-seed", "-1", "--epochs", "-1", "--teacher", "resnet56"])
    assert [line.partition(": error: ")[2].split("=")[0] for line in capsys.readouterr().err.splitlines()] == [
        "--split-seed",
        "--teacher names 1 networks and --teacher-weights 0 files; give one file for each",
        "--epochs",
        "--reduction",
    ]


@pytest.mark.parametrize("verb", ["pretrain", "adapt", "gate", "run"])
def test_room_on_the_disk_is_asked_for_before_anything_is_trained(
    verb: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "recipe.toml").write_text(RECIPE.replace("Odd", "plain"))
    arguments = {"run": ("run", "recipe.toml", "--out", "made")}.get(
        verb, (verb, "--model", "odd_networks:plain", *COMMON, "--out", "w.safetensors")
    )
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(SystemExit, match="2"):
        main([*arguments])
    said = capsys.readouterr().err
    assert re.search("rlprune: error: .* will need about 0.. MiB, and 0.0 MiB are free on its disk; make room", said)
    assert "batch/s" not in said


def test_a_training_is_gone_on_with_however_its_folder_is_spelt(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = ["pretrain", "--model", "odd_networks:plain", "--epochs", "2", "--out", "w.safetensors", "--data"]

    def interrupt(n_images: int, figures: dict[str, float]) -> None:
        if n_images > 30:  # in the second epoch
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(resumable, "scalar_log", lambda *_: interrupt)
        main([*twice, "pets"])
    with pytest.raises(SystemExit, match="2"):
        main([*twice, "others", "--resume"])
    assert "made under other settings (data: 'pets', now 'others'); go back to" in capsys.readouterr().err
    main([*twice, f"{project}/./pets/", "--resume"])
    assert (project / "w.safetensors").exists()
