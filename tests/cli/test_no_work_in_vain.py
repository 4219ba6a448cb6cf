from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlprune.cli.main import main

NETWORK = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16, 2)
    def forward(self, x):
        return self.c(torch.special.i0e(self.b(self.a(x).relu()).mean((2, 3))))
"""
COMMON = ("--data", "pets", "--epochs", "1", "--batch-size", "8")
ADAPT = ("adapt", "--model", "odd_networks:Odd", *COMMON, "--out", "net")
GATE = ("gate", "--model", "odd_networks:Odd", *COMMON, "--out", "net")
PRETRAIN = ("pretrain", "--model", "odd_networks:Odd", *COMMON, "--out")


@pytest.fixture(autouse=True)
def project(apart: None, tmp_path: Path) -> Path:
    (tmp_path / "odd_networks.py").write_text(NETWORK)
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
        (("train", "--network", "n", "--out", "run", "--data", "pets", "--ppo", '{"gamma": NaN}'), "is not finite"),
        (("train", "--network", "n", "--out", "run", "--data", "pets", "--penalty", "inf"), "--penalty=inf"),
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
    assert sorted(path.name for path in project.iterdir() if path.name != "__pycache__") == ["odd_networks.py", "pets"]
