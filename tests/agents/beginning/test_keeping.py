"""What was learnt is kept where validation images say that it is ahead, by more than chance; else the cascade."""

from __future__ import annotations

import math

import pytest
import torch

from rlprune.agents.beginning.keeping import CONFIDENCE, Choice


def rewards(gain: float, n: int, spread: float = 1.0) -> torch.Tensor:
    """Differences of mean `gain`: half of the images are above by `spread`, half below."""
    return gain + spread * torch.tensor([1.0, -1.0]).repeat(n // 2)


@pytest.mark.parametrize(
    ("gain", "n", "kept"),
    [
        (0.0, 1000, "cascade"),
        (0.02, 1000, "cascade"),  # its standard error is 0.032
        (0.02, 10000, "learnt"),  # 0.01
        (0.03, 1000, "learnt"),
        (-0.1, 1000, "cascade"),
    ],
)
def test_thin_evidence_keeps_the_cascade(gain: float, n: int, kept: str) -> None:
    choice = Choice.between(rewards(gain, n), rewards(0.1, 100))
    assert choice.kept == kept
    assert choice.gain == pytest.approx(gain, abs=1e-6)
    assert choice.standard_error == pytest.approx(1 / math.sqrt(n - 1))


def test_the_images_that_train_are_noted_and_have_no_say() -> None:
    choice = Choice.between(rewards(0.5, 100), rewards(-0.1, 100))
    assert choice.kept == "learnt" and choice.gain_in_training == pytest.approx(-0.1)
    assert Choice.of_notes(choice.noted()) == choice
    assert "what was learnt is kept: learning gains +0.5000" in str(choice)


def test_equal_decisions_and_a_single_image_keep_the_cascade() -> None:
    assert Choice.between(torch.zeros(100), torch.zeros(100)).kept == "cascade"
    one = Choice.between(torch.tensor([0.5]), torch.ones(3))
    assert one.kept == "cascade" and one.noted()["standard_error"] is None


def test_the_bar_is_what_it_says() -> None:
    error = float(rewards(0.0, 400).std()) / 20
    for more, kept in ((0.999, "cascade"), (1.001, "learnt")):
        assert Choice.between(rewards(more * CONFIDENCE * error, 400), torch.ones(2)).kept == kept
