"""What slices run in where they are deployed, by its name: for prices that are measured times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from rlprune.evaluation.timing.runner import onnx_module, require_onnx
from rlprune.graph.folding import fold_norms
from rlprune.profiles.latency import PYTORCH, Backend

BackendName = Literal["pytorch", "onnxruntime"]


def backend_named(name: BackendName) -> Backend:
    """What runs slices: PyTorch as `rlprune.load` does it, or onnxruntime as it runs what `rlprune export` writes.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    if name == "pytorch":
        return PYTORCH
    require_onnx()
    return Backend("onnxruntime", fold_norms, _bind)


def _bind(module: nn.Module, values: Tensor) -> Callable[[], object]:
    run, values = onnx_module(module, values), values.contiguous()
    return lambda: run(values)
