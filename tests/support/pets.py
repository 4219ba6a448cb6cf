"""Twenty dark cats, twenty bright dogs, a tiny network, and the command lines that make one thing of the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlprune.cli.main import main

NETWORK = """
from torch import nn

def small(n_classes=2, channels=3):
    def block(n_in, n_out):
        return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, n_classes)
    return nn.Sequential(block(channels, 8), block(8, 16), block(16, 16), *head)

def three_classes():
    return small(3)

def grey():
    return small(2, 1)
"""
MODEL = ("--model", "tinynet.nets:small")
DATA = ("--data", "pets")
ONE_EPOCH = ("--epochs", "1", "--batch-size", "8", "--padding", "1", "--bf16", "False", "--no-channels-last")
PRETRAIN = ("pretrain", *MODEL, *DATA, *ONE_EPOCH, "--out", "dense.safetensors")
ADAPT = ("adapt", *MODEL, *DATA, *ONE_EPOCH, "--weights", "dense.safetensors", "--out", "network")
LEARN = ("--total-steps", "64", "--n-envs", "8", "--n-steps", "4", "--batch-size", "8", "--validate-every", "32")
TRAIN = ("train", "--network", "network", *DATA, "--n-candidates", "6", "--n-profiles", "3", *LEARN, "--out", "run")
GATE = ("gate", *MODEL, *DATA, *ONE_EPOCH, "--weights", "dense.safetensors", "--out", "x")
PRUNE = ("prune", "--network", "network", *DATA, *ONE_EPOCH, "--n-candidates", "6", "--out", "x")
NEW = (*TRAIN[:-1], "new")
# Rows of onnxruntime are exported first, which takes seconds.
QUICK_ROWS = ("--rows", "dense", "dynamic", "--seconds", "0")
EXPORT = ("export", "--network", "network", "--policy", "run", "--out", "bundle")


def draw_pets(root: Path) -> None:
    """Put pictures and network into a folder."""
    (root / "tinynet").mkdir()
    (root / "tinynet" / "nets.py").write_text(NETWORK)
    generator = np.random.default_rng(0)
    for name, low in (("cat", 0), ("dog", 128)):
        (root / "pets" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(low, low + 128, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "pets" / name / f"{number}.png")


def run_json(root: Path, *arguments: str) -> Any:
    """The figures that a verb, called in a folder, writes."""
    main([*arguments, "--json", "figures.json"])
    return json.loads((root / "figures.json").read_text())


def scalars(folder: Path) -> set[str]:
    """The tags in a folder's events."""
    return set(EventAccumulator(str(folder)).Reload().Tags()["scalars"])


def content(root: Path) -> dict[Path, bytes]:
    """Every file in a folder, but for what Python compiles."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
