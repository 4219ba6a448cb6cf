"""A network whose slices have known answers, easy images that any of them gets right, and hard ones for the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.data.image_set import ImageSet, Splits
from rlprune.errors import RLPruneError
from rlprune.optimization.goal import PlanOptions
from rlprune.optimization.pace import Pace
from rlprune.optimization.verdict.figures import Times
from rlprune.optimization.verdict.measuring import TimeOfShare

CLASSES = ("up", "down")
PACE = Pace(forward=1e-4, adapt=5e-4, narrowest=0.3)
QUICK = PlanOptions(slice_epochs=0, profile_epochs=1, learning_rate=1e-9, policy_steps=2048, n_profiles=3, padding=0)
"""Next to nothing is trained, so that what is known of the slices stays true."""


class Signals(nn.Module):
    """Says `up` if the first channel is bright, or the second one where the first tells little.

    The inner channels that matter most look at the first channel alone, with which easy images are told; the others
    look at the second one, with which hard images are told.

    Args:
        width: of the inner layer.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, width, 1, bias=False)
        self.linear = nn.Linear(width, 2, bias=False)
        sign = torch.tensor([1.0, -1.0]).repeat(width // 2)
        first = torch.arange(width) < width // 2
        with torch.no_grad():
            self.stem.weight.zero_()
            for row in range(4):  # each sign of the first two channels of an image
                self.stem.weight[row, row // 2, 0, 0] = 1.0 if row % 2 == 0 else -1.0
            self.inner.weight.zero_()
            for row in range(width):
                self.inner.weight[row, (0 if first[row] else 2) + row % 2, 0, 0] = 1.0 if first[row] else 0.8
            strength = torch.where(first, 1.0, 0.9) * 16 / width
            self.linear.weight[0] = strength * sign
            self.linear.weight[1] = -strength * sign

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.inner(F.relu(self.stem(x))))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def signals(n: int, hard: float = 0.0, seed: int = 0) -> ImageSet:
    """Images of both classes.

    Args:
        n: how many.
        hard: share of them in which the first channel points, a little, to the wrong class, and the second to the right
            one.
        seed: of which is which.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n,), generator=generator)
    is_hard = torch.rand(n, generator=generator) < hard
    sign = 1 - 2 * labels.float()
    first = torch.where(is_hard, -0.1 * sign, sign)
    second = torch.where(is_hard, sign, torch.zeros(n))
    values = torch.stack([first, second, torch.zeros(n)], 1)  # normalised: (x / 255 - 0.5) / 0.5
    pixels = (127.5 + 127.5 * values).round().clamp(0, 255).to(torch.uint8)
    images = pixels[:, :, None, None].expand(n, 3, 12, 12).contiguous()
    return ImageSet(images, labels, CLASSES, (0.5,) * 3, (0.5,) * 3)


def splits(hard: float = 0.0, n_test: int = 400, n: int = 300) -> Splits:
    """Images of every part."""
    return Splits(signals(64, hard), signals(n, hard, 1), signals(n, hard, 2), signals(n_test, hard, 3))


def without_clocks(monkeypatch: pytest.MonkeyPatch, narrowest: float = 3.0, **ms: float) -> None:
    """Let every time be known: of rows as they are given, else 10 ms of the network as it is and 6 of others.

    Args:
        monkeypatch: takes it back.
        narrowest: milliseconds of the narrowest slice, where the whole takes 10.
        ms: of rows, with underscores for blanks.
    """

    def times(rows: Any, *_: Any) -> dict[str, Times]:
        known = {name: ms.get(name.replace(" ", "_"), 10.0 if name.startswith("dense") else 6.0) for name in rows}
        return {name: Times(each, each, each) for name, each in known.items()}

    pace = TimeOfShare((0.25, 1.0), (narrowest / 10, 1.0))
    monkeypatch.setattr("rlprune.optimization.check.measure_pace", lambda *_: PACE)
    monkeypatch.setattr("rlprune.optimization.check._slice_times", lambda *_: (10.0, narrowest))
    monkeypatch.setattr("rlprune.optimization.check.ms_of_file", lambda *_: (10.0, PACE.piece))
    monkeypatch.setattr("rlprune.optimization.check._seconds_since", lambda _: 0.0)
    monkeypatch.setattr("rlprune.optimization.entry.pricing._MOST_SECONDS", 0.0)
    monkeypatch.setattr("rlprune.optimization.verdict.comparison.time_rows", times)
    monkeypatch.setattr("rlprune.optimization.verdict.comparison.Comparison._pace", lambda *_: (pace, 10.0))


def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no ONNX file be written, which takes most of the time: rows of PyTorch alone."""

    def refuse(*_: object, **__: object) -> bytes:
        raise RLPruneError("not written here")

    monkeypatch.setattr("rlprune.optimization.verdict.rows.to_static_onnx", refuse)
    monkeypatch.setattr("rlprune.optimization.verdict.comparison.Comparison.files", lambda *_: {})
    monkeypatch.setattr("rlprune.optimization.job.write_page", lambda *_: None)
