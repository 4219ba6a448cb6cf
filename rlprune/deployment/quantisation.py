"""Post-training quantisation of a part of an ONNX file to eight-bit integers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from rlprune.errors import DataError
from rlprune.utils.imports import require

_AT_ONCE = 32


def quantised(piece: Any, inputs: Tensor) -> Any:
    """Quantise a model: its convolutions and linear layers then compute with int8 weights and uint8 activations.

    Weights have one scale per output channel, activations one per tensor, from their range on the inputs given (Jacob
    et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
    onnxruntime's quantiser does the work. Processors with integer dot products (VNNI) run the result several times as
    fast; on older ones sums may saturate.

    Args:
        piece: an `onnx.ModelProto` with one input.
        inputs: calibration inputs, float32 (N, ...); some hundreds are enough.

    Returns:
        The quantised `onnx.ModelProto`.

    Raises:
        DataError: there are no inputs.
        MissingExtraError: onnxruntime is not installed.
    """
    if not len(inputs):
        raise DataError("int8 needs calibration images, and there are none; some hundreds are enough")
    quantization = require("onnxruntime.quantization", "onnx")
    onnx = require("onnx", "onnx")
    (entry,) = piece.graph.input
    parts = iter([{entry.name: part.numpy()} for part in inputs.split(_AT_ONCE)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> Any:
            """The next inputs, or None."""
            return next(parts, None)

    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder, "before.onnx")
        after = Path(folder, "after.onnx")
        onnx.save(_tagged(piece), before)  # the quantiser would change a model in memory
        quantization.quantize_static(
            before,
            after,
            Reader(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        made = onnx.load(after)
        del made.metadata_props[:]
        return made


def _tagged(piece: Any) -> Any:
    """A copy that says it is prepared: its norms are folded; else the quantiser warns, on the root logger."""
    copied = type(piece)()
    copied.CopyFrom(piece)
    copied.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return copied
