"""Settings of trainings are checked, and say in what numbers to compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlprune.errors import RLPruneError
from rlprune.training.adaptation import AdaptSettings
from rlprune.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": -1}, "epochs=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"warm_up": 1.0}, r"warm_up=1\.0: give a number of 0 or more, below 1"),
        (
            {"momentum": 1.0},
            r"momentum=1\.0: give a number of 0 or more, below 1",
        ),
        ({"momentum": -0.1}, r"momentum=-0\.1"),
        ({"weight_decay": -1.0}, r"weight_decay=-1\.0"),
        ({"scale_penalty": -1.0}, r"scale_penalty=-1\.0"),
        ({"padding": -1}, "padding=-1"),
        ({"device": "toaster"}, r"device='toaster': it cannot be used here \(.*\); cpu always can"),
        ({"device": "meta"}, r"device='meta': it cannot be used here \(.*\); cpu always can"),
        ({"device": "cuda:99"}, r"device='cuda:99': it cannot be used here \(.*\); cpu always can"),
        ({"n_random": -1}, "n_random=-1"),
        (
            {"n_random": 0, "sandwich": False},
            r"n_random=0, sandwich=False: a step needs a profile; give an n_random of 1",
        ),
        (
            {"views": -1},
            "views=-1: give a whole number of 0 or more",
        ),
        ({"early_size": -1}, "early_size=-1"),
        ({"early_share": 1.1}, r"early_share=1\.1"),
        ({"average_share": 1.1}, r"average_share=1\.1: give a number from 0 to 1"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"distillation": 1.5}, "distillation=1.5"),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        AdaptSettings(**wrong)


@pytest.mark.parametrize(
    ("bf16", "capabilities", "expected"),
    [
        (None, {"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        (None, {"amx_bf16": True}, torch.bfloat16),
        (None, {"arm_bf16": True}, torch.bfloat16),
        (None, {"avx512_bf16": False, "avx2": True}, torch.float32),
        (None, {}, torch.float32),
        (True, {}, torch.bfloat16),
        (False, {"avx512_bf16": True}, torch.float32),
    ],
)
def test_bfloat16_is_used_where_the_processor_has_it_or_as_it_is_said(
    monkeypatch: pytest.MonkeyPatch, bf16: bool | None, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    with TrainingSettings(bf16=bf16).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_a_torch_that_cannot_tell_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    with TrainingSettings().autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
