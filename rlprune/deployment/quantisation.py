"""Eight-bit integers instead of floating point, after training, for a piece of an ONNX file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from rlprune.errors import DataError
from rlprune.utils.imports import require

_AT_ONCE = 32


def quantised(piece: Any, inputs: Tensor) -> Any:
    """A model whose convolutions and linear layers compute with int8 weights and uint8 activations.

    Weights have a scale for every output channel, activations one for the tensor: the range that they have on the
    inputs given (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018). onnxruntime's quantiser does it. Processors with integer dot products (VNNI) compute so
    several times as fast; older ones may saturate.

    Args:
        piece: an `onnx.ModelProto` with one input.
        inputs: what it is calibrated on, float32 (N, ...); some hundreds are enough.

    Raises:
        DataError: there are no inputs.
        MissingExtraError: onnxruntime is not installed.
    """
    if not len(inputs):
        raise DataError("int8 needs calibration images, and there are none; some hundreds are enough")
    quantization, onnx = require("onnxruntime.quantization", "onnx"), require("onnx", "onnx")
    (entry,) = piece.graph.input
    parts = iter([{entry.name: part.numpy()} for part in inputs.split(_AT_ONCE)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> Any:
            """The next inputs, or None."""
            return next(parts, None)

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(piece, before)  # the quantiser would change a model that it is given
        quantization.quantize_static(
            before,
            after,
            Reader(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(after)
