"""`rlprune gate`: what its seed fixes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from pets import GATE, PRETRAIN, draw_pets

from rlprune.cli.main import main


def test_gates_are_the_same_whatever_was_drawn_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_pets(tmp_path)
    monkeypatch.delenv("RLPRUNE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    main([*PRETRAIN])
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        main([*GATE])
        found.append((tmp_path / "x" / "network.safetensors").read_bytes())
        shutil.rmtree(tmp_path / "x")
    assert found[0] == found[1]
