"""What torch logs while a piece is exported."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from rlprune.deployment.onnx.pieces import export_piece


def test_torchs_registry_is_quiet_while_a_piece_is_exported_and_then_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before, export, heard = logger.level, torch.onnx.export, []

    def listening(*arguments: Any, **options: Any) -> Any:
        heard.append(logger.isEnabledFor(logging.WARNING))
        return export(*arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", listening)
    export_piece("linear", nn.Linear(2, 2), (torch.zeros(2, 2),))
    assert heard == [False] and logger.level == before
