"""Post-training quantisation of parts of an ONNX file to eight-bit integers, and features that pass between them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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


class ByteScale(NamedTuple):
    """What uint8 numbers stand for: ``scale * (number - zero)``."""

    scale: float
    zero: int

    @classmethod
    def of(cls, values: Tensor) -> ByteScale:
        """One that holds the range of some values, and 0."""
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        scale = (high - low) / 255 or 1.0
        return cls(scale, round(-low / scale))


def give_bytes(piece: Any, values: Tensor) -> ByteScale:
    """Let a quantised model give uint8 (N, H, W, C) in place of floats (N, C, H, W).

    onnxruntime computes convolutions of integers in that order, and would go back to the other one behind them.

    Args:
        piece: with one output; it is changed.
        values: what it gives, float32 (N, C, H, W), for where its last operator was left in floats.

    Returns:
        What the numbers stand for.
    """
    helper, numpy_helper = (require(f"onnx.{name}", "onnx") for name in ("helper", "numpy_helper"))
    graph, output = piece.graph, piece.graph.output[0]
    last = next((node for node in graph.node if output.name in node.output), None)
    if last is not None and last.op_type == "DequantizeLinear" and len(last.input) == 3:
        held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        found = ByteScale(*(held[name].item() for name in last.input[1:]))
        output.name = last.input[0]
        if not any(last.output[0] in node.input for node in graph.node):
            graph.node.remove(last)
    else:
        found = ByteScale.of(values)
        inputs = [output.name, *_held(piece, output.name, found)]
        output.name = f"{output.name}_bytes"
        graph.node.append(helper.make_node("QuantizeLinear", inputs, [output.name]))
    turned = f"{output.name}_turned"
    graph.node.append(helper.make_node("Transpose", [output.name], [turned], perm=[0, 2, 3, 1]))
    output.name = turned
    output.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(np.uint8))
    return found


def read_bytes(piece: Any, scale: ByteScale) -> None:
    """Let a quantised model read uint8 (N, H, W, C), as `give_bytes` has them, in place of floats (N, C, H, W).

    Args:
        piece: with one input; it is changed.
        scale: what the numbers stand for.
    """
    helper = require("onnx.helper", "onnx")
    graph, entry = piece.graph, piece.graph.input[0]
    floats, given, turned = entry.name, f"{entry.name}_bytes", f"{entry.name}_turned"
    held = _held(piece, floats, scale)
    for node in [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == floats]:
        for reader in [each for each in graph.node if node.output[0] in each.input]:
            reader.input[:] = [given, *held]  # all of them go back to floats
        graph.node.remove(node)
    if any(floats in node.input for node in graph.node):
        graph.node.insert(0, helper.make_node("DequantizeLinear", [given, *held], [floats]))
    graph.node.insert(0, helper.make_node("Transpose", [turned], [given], perm=[0, 3, 1, 2]))
    entry.name = turned
    entry.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(np.uint8))


def _held(piece: Any, name: str, scale: ByteScale) -> list[str]:
    """The names of a scale and its zero, which a model then holds."""
    from_array = require("onnx.numpy_helper", "onnx").from_array
    numbers = {f"{name}_scale_of_bytes": np.float32(scale.scale), f"{name}_zero_of_bytes": np.uint8(scale.zero)}
    piece.graph.initializer.extend(from_array(np.asarray(number), key) for key, number in numbers.items())
    return [*numbers]


def _tagged(piece: Any) -> Any:
    """A copy that says it is prepared: its norms are folded; else the quantiser warns, on the root logger."""
    copied = type(piece)()
    copied.CopyFrom(piece)
    copied.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return copied
