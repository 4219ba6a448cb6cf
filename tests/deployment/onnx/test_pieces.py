"""Pieces of files: what torch logs meanwhile, and shortcuts without weights, which become convolutions."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.deployment.onnx.pieces import export_piece, session


@pytest.mark.parametrize("spin", [True, False])
def test_threads_sleep_between_calls_and_wait_busily_within_one_if_asked(spin: bool) -> None:
    piece = export_piece("linear", nn.Linear(2, 2), (torch.zeros(2, 2),))
    options = session(piece.SerializeToString(), 2, spin=spin).get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spin))


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


class Shortcut(nn.Module):
    """Leaves out pixels, and adds what is beside the rest."""

    def __init__(self, rows: slice, columns: slice, pads: tuple[int, ...], mode: str = "constant", value: float = 0.0):
        super().__init__()
        self.kept = rows, columns
        self.pads = pads
        self.mode = mode
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.kept
        if self.mode != "constant":
            return F.pad(x[:, :, rows, columns], self.pads, self.mode)
        return F.pad(x[:, :, rows, columns], self.pads, value=self.value)


def operators(shortcut: nn.Module, x: Tensor, *, integers: bool = False) -> set[str]:
    """What a shortcut becomes, once that it computes the same is made sure of."""
    piece = export_piece("shortcut", shortcut, (x[:2],), integers=integers)
    runs = session(piece.SerializeToString(), 1, spin=False)
    (found,) = runs.run(None, {runs.get_inputs()[0].name: x.numpy()})
    assert torch.equal(torch.from_numpy(found), shortcut(x))
    return {node.op_type for node in piece.graph.node}


EVERY = slice(None)
OTHER = slice(None, None, 2)


@pytest.mark.parametrize(
    "shortcut",
    [
        Shortcut(OTHER, OTHER, (0, 0, 0, 0, 1, 2)),
        Shortcut(slice(None, None, 3), EVERY, (0, 0, 0, 0, 0, 4)),
        Shortcut(EVERY, OTHER, (0, 0, 0, 0, 2, 0)),
    ],
)
def test_shortcuts_without_weights_are_convolutions_in_float32_alone(shortcut: nn.Module) -> None:
    pytest.importorskip("onnxruntime")
    x = torch.randn(3, 4, 7, 8, generator=torch.manual_seed(0))
    assert operators(shortcut, x) == {"Conv"}
    assert "Conv" not in operators(shortcut, x, integers=True)


@pytest.mark.parametrize(
    "other",
    [
        Shortcut(EVERY, EVERY, (0, 0, 0, 0, 1, 1)),
        Shortcut(slice(1, None, 2), slice(1, None, 2), (0, 0, 0, 0, 1, 1)),
        Shortcut(slice(None, 4, 2), slice(None, 4, 2), (0, 0, 0, 0, 1, 1)),
        Shortcut(OTHER, OTHER, (1, 0, 0, 1)),
        Shortcut(OTHER, OTHER, (0, 0, 0, 1, 1, 1)),
        Shortcut(OTHER, OTHER, (0, 0, 0, 0, -1, 1)),
        Shortcut(OTHER, OTHER, (0, 0, 0, 0, 1, 1), value=1.0),
        Shortcut(OTHER, OTHER, (1, 1, 1, 1), "replicate"),
    ],
)
def test_what_is_not_quite_such_a_shortcut_stays(other: nn.Module) -> None:
    pytest.importorskip("onnxruntime")
    assert "Conv" not in operators(other, torch.randn(3, 4, 7, 8, generator=torch.manual_seed(0)))
