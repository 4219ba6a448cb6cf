"""Trainings go on from their checkpoints as if nothing had been, and from none that is not theirs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import (
    make_data,
    make_elastic,
    network,
)
from quick import QUICK

from rlprune.errors import RLPruneError
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.pretraining import pretrain
from rlprune.training.run import share_of_peak
from rlprune.training.settings import TrainingSettings


class Interrupted(Exception):
    pass


def interrupt_after(epochs: int) -> Any:
    """A log that stops the training at the end of the epoch after these."""
    calls = []

    def log(_: int, figures: dict[str, float]) -> None:
        calls.append(figures)
        if len(calls) > epochs:
            raise Interrupted

    return log


@pytest.mark.parametrize("kind", ["residual", "plain"])  # plain has dropout
@pytest.mark.parametrize("more", [{}, {"views": 2, "early_size": 12, "early_share": 0.3}, {"average_share": 0.7}])
def test_an_interrupted_run_that_goes_on_equals_one_that_was_not(kind: str, more: Any, tmp_path: Path) -> None:
    settings, data = AdaptSettings(epochs=3, **QUICK, **more), make_data(40)
    whole, first, second = (make_elastic(kind) for _ in range(3))
    adapt(whole, data, settings)
    with pytest.raises(Interrupted):
        adapt(first, data, settings, checkpoint=tmp_path / "run.pt", log=interrupt_after(2))
    adapt(second, data, settings, checkpoint=tmp_path / "run.pt")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())


def test_a_run_that_is_over_is_not_trained_again(tmp_path: Path) -> None:
    settings, data = TrainingSettings(epochs=1, **QUICK), make_data(20)
    checkpoint = tmp_path / "a\\run.pt"  # where that is one name, torch by itself cannot open it
    model, again = network("plain"), network("plain", seed=1)
    pretrain(model, data, settings, checkpoint=checkpoint)
    figures: list[float] = []
    pretrain(again, data, settings, checkpoint=checkpoint, log=lambda n, _: figures.append(n))
    assert figures == []
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    settings, data = TrainingSettings(epochs=1, **QUICK), make_data(20)
    pretrain(network("plain"), data, settings, checkpoint=tmp_path / "run.pt")
    message = r"was made under other settings \(epochs: 1, now 2; learning_rate: 0\.1, now 0\.3\); go back to those, or"
    with pytest.raises(RLPruneError, match=message):
        pretrain(
            network("plain"),
            data,
            replace(settings, epochs=2, learning_rate=0.3),
            checkpoint=tmp_path / "run.pt",
        )


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ({"device": "cuda"}, "(device=cuda, now cpu)"),
        ({"device": "cuda:1", "bf16": True}, "(bf16=True, now False; device=cuda:1, now cpu)"),
        ({"channels_last": True}, "(channels_last=True, now False)"),
        ({}, None),
    ],
)
def test_a_run_goes_on_elsewhere_and_in_another_precision(
    before: dict[str, Any], said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, data = TrainingSettings(epochs=3, **QUICK), make_data(20)
    whole, first, second = (network("plain") for _ in range(3))
    pretrain(whole, data, settings)
    with pytest.raises(Interrupted):
        pretrain(first, data, settings, checkpoint=tmp_path / "run.pt", log=interrupt_after(1))
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    torch.save(saved | {"settings": saved["settings"] | before}, tmp_path / "run.pt")  # as another machine writes it
    pretrain(second, data, settings, checkpoint=tmp_path / "run.pt")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())
    out = capsys.readouterr().out
    assert f"{said}: rounding may differ" in out if said else out == ""


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    settings, data = TrainingSettings(epochs=1, **QUICK), make_data(20)
    pretrain(network("plain"), data, settings, checkpoint=tmp_path / "run.pt")
    with pytest.raises(RLPruneError, match="belongs to another network"):
        pretrain(network("residual"), data, settings, checkpoint=tmp_path / "run.pt")


def test_a_checkpoint_of_before_a_setting_was_known_is_gone_on_with(tmp_path: Path) -> None:
    path, model = tmp_path / "checkpoint.pt", network("plain")
    settings = TrainingSettings(epochs=1, **QUICK)
    pretrain(model, make_data(16), settings, checkpoint=path)
    saved = torch.load(path, weights_only=True)
    del saved["settings"]["scale_penalty"]
    torch.save(saved, path)
    again = network("plain", seed=1)
    pretrain(again, make_data(16), settings, checkpoint=path)
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [share_of_peak(n, 10, 0.2) for n in range(11)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0)


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_the_learning_rate_has_one_peak(n_steps: int, warm_up: float) -> None:
    rates = [share_of_peak(n, n_steps, warm_up) for n in range(n_steps + 1)]
    peak = rates.index(max(rates))
    assert 0 < rates[0]
    assert max(rates) <= 1
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
