"""Trainings that start from what another one learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lamp import SHORT, lamp_settings, same, train_lamp

from rlprune.errors import RLPruneError


def test_a_run_may_start_from_what_another_learnt(tmp_path: Path) -> None:
    higher = train_lamp(tmp_path / "higher", lamp_settings(**SHORT, penalty=0.4))
    still = lamp_settings(**SHORT, penalty=0.1, learning_rate=1e-12)
    assert not same(train_lamp(tmp_path / "alone", still), higher)
    begun = train_lamp(tmp_path / "begun", still, start=tmp_path / "higher")
    for name, value in begun.network.state_dict().items():
        torch.testing.assert_close(value, higher.network.state_dict()[name])


def test_runs_that_start_alike_go_on_by_their_own_seeds(tmp_path: Path) -> None:
    train_lamp(tmp_path / "first", lamp_settings(**SHORT))
    policies = [
        train_lamp(tmp_path / name, lamp_settings(**SHORT, seed=seed), start=tmp_path / "first")
        for name, seed in (("one", 1), ("again", 1), ("two", 2))
    ]
    assert same(policies[0], policies[1]) and not same(policies[0], policies[2])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (None, r"no run can start from .*run \(FileNotFoundError"),
        ({"hidden": (12,)}, r"the run in .* has hidden=\[12\]; a run that starts from it must have the same"),
        ({"max_passes": 1}, r"the run in .* has max_passes=1"),
    ],
)
def test_a_run_cannot_start_from_what_is_not_there_or_sees_other_things(
    tmp_path: Path, changed: dict[str, Any] | None, message: str
) -> None:
    if changed is not None:
        train_lamp(tmp_path / "run", lamp_settings(**SHORT, **changed))
    with pytest.raises(RLPruneError, match=message):
        train_lamp(tmp_path / "new", lamp_settings(**SHORT), start=tmp_path / "run")
    assert not list(tmp_path.glob("new/*"))


def test_a_run_cannot_start_from_another_codebook_or_a_damaged_one(tmp_path: Path) -> None:
    train_lamp(tmp_path / "run", lamp_settings(**SHORT))
    with pytest.raises(RLPruneError, match=r"the run in .* has another codebook"):
        train_lamp(tmp_path / "new", lamp_settings(**SHORT), start=tmp_path / "run", codebook=torch.tensor([[0]]))
    (tmp_path / "run" / "checkpoint.zip").write_bytes(b"zip")
    with pytest.raises(RLPruneError, match=r"no run can start from .*run \("):
        train_lamp(tmp_path / "new", lamp_settings(**SHORT), start=tmp_path / "run")


def test_a_run_is_resumed_from_where_it_started(tmp_path: Path) -> None:
    settings = lamp_settings(**SHORT)
    train_lamp(tmp_path / "first", settings)
    train_lamp(tmp_path / "run", settings, start=tmp_path / "first")
    with pytest.raises(RLPruneError, match="or from another start"):
        train_lamp(tmp_path / "run", settings, resume=True)
    train_lamp(tmp_path / "run", settings, start=tmp_path / "first", resume=True)
