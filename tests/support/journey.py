"""`rlprune optimize` at the smallest size: pictures, a network and its checkpoint, and what makes the command quick."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rlprune
from rlprune.optimization import check, plan
from rlprune.optimization.entry import pacing
from rlprune.optimization.plan import PlanOptions

CLASSES = ("cats", "dogs")
QUICK = {"slice_epochs": 1, "profile_epochs": 1, "policy_steps": 2048, "n_profiles": 2, "n_candidates": 5}
QUICK |= {"max_passes": 1}
"""What would otherwise follow from the time limit."""
_NETWORK = """\
from torch import nn


def build_net():
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))
"""
_STANDS_FOR = {
    "torchvision:resnet18": "tiny_nets:build_net",
    "resize=112,crop=96": "resize=20,crop=16",
    "96, 96": "16, 16",
}


def here(text: str) -> str:
    """A line of the documentation with what is here in the place of a network of torchvision and its pictures."""
    for theirs, ours in _STANDS_FOR.items():
        text = text.replace(theirs, ours)
    return text


def quick_arguments() -> list[str]:
    """The same for the command line."""
    return [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with pictures of two classes, bright and dark, and a network that tells them apart.

    Nothing is timed for long.
    """
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(plan, "_MOST_TIMING", 0.2)
    monkeypatch.setattr(pacing, "ENOUGH", 0.05)
    monkeypatch.setattr(check, "_SLACK", 100.0)  # so small a network gains nothing, and would be refused at once
    monkeypatch.setattr(check, "interleaved", lambda runs, seconds: _interleaved(runs, 0.05))
    monkeypatch.setattr(rlprune, "optimize", functools.partial(rlprune.optimize, plan=PlanOptions(**QUICK)))
    if not Path("checkpoint.pth").exists():
        _draw_pictures(Path("pictures"))
        Path("tiny_nets.py").write_text(_NETWORK)
        torch.save({"model": _trained(), "epoch": 3}, "checkpoint.pth")


_interleaved = check.interleaved


def _draw_pictures(folder: Path, n: int = 40) -> None:
    generator = np.random.default_rng(0)
    for least, name in zip((20, 130), CLASSES, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(n):
            pixels = generator.integers(least, least + 90, (24, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def _trained() -> dict[str, torch.Tensor]:
    import tiny_nets  # type: ignore[import-not-found]

    torch.manual_seed(0)
    network = tiny_nets.build_net()
    images = rlprune.data.load("pictures", preprocess="resize=20,crop=16,imagenet", shares=(0.6, 0.2, 0.2)).network
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images.normalised(slice(None))), images.labels)
        loss.backward()
        optimizer.step()
    state: dict[str, torch.Tensor] = network.state_dict()
    return state
