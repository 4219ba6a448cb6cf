from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import make_data, make_elastic, network
from streams import streamed

from rlprune.errors import RLPruneError
from rlprune.training import logit_shards
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.distillation import cache_teacher_logits
from rlprune.training.settings import TrainingSettings

QUICK: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 16,
    "bf16": False,
    "channels_last": False,
    "padding": 2,
    "workers": 0,
}
VIEWS = TrainingSettings(views=2, **QUICK)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logit_shards, "_PER_SHARD", 8)


def test_they_are_those_that_would_be_in_memory_and_are_made_once(tmp_path: Path) -> None:
    teacher, data = network("residual"), make_data(20)
    here = cache_teacher_logits(teacher, data, VIEWS, 16)
    there = cache_teacher_logits(teacher, streamed(data), VIEWS, 16, folder=tmp_path / "logits")
    images, views = torch.tensor([19, 0, 8, 7, 8]), torch.tensor([1, 0, 1, 1, 0])
    assert there.shape == here.shape == (20, 2, 5) and torch.equal(there[images, views], here[images, views])
    (tmp_path / "logits" / "logits-000001.npy").unlink()
    made = (tmp_path / "logits" / "logits-000000.npy").stat().st_mtime_ns
    again = cache_teacher_logits(teacher, streamed(data), VIEWS, 16, folder=tmp_path / "logits")
    assert torch.equal(again[images, views], here[images, views])
    assert (tmp_path / "logits" / "logits-000000.npy").stat().st_mtime_ns == made


def test_a_student_learns_from_them_as_from_those_in_memory(tmp_path: Path) -> None:
    teacher, data = network("plain"), make_data(20)
    settings = AdaptSettings(views=2, **QUICK)
    one, other = make_elastic("plain"), make_elastic("plain")
    adapt(one, data, settings, teacher=cache_teacher_logits(teacher, data, settings))
    adapt(other, data, settings, teacher=cache_teacher_logits(teacher, data, settings, folder=tmp_path / "logits"))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_those_of_another_teacher_or_damaged_ones_are_refused(tmp_path: Path) -> None:
    teacher, data = network("plain"), make_data(20)
    folder = tmp_path / "logits"
    cache_teacher_logits(teacher, data, VIEWS, folder=folder)
    with pytest.raises(RLPruneError, match=r"logits was made under other settings \(teacher: .*remove the folder"):
        cache_teacher_logits(network("plain", 1), data, VIEWS, folder=folder)
    with pytest.raises(RLPruneError, match=r"made under other settings \(views: \[2, 2, True, None\], now \[2, 1"):
        cache_teacher_logits(teacher, data, replace(VIEWS, padding=1), folder=folder)
    (folder / "logits-000001.npy").write_bytes(b"x")
    with pytest.raises(RLPruneError, match=r"logits-000001\.npy is missing or damaged"):
        cache_teacher_logits(teacher, data, VIEWS, folder=folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(RLPruneError, match=r"full holds other things, such as letter\.txt"):
        cache_teacher_logits(teacher, data, VIEWS, folder=tmp_path / "full")
