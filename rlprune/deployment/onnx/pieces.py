"""Parts of a network as models of ONNX, exported by torch, and as functions of a file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.deployment.onnx.graph import DOMAIN, OPSET
from rlprune.errors import DataError, RLPruneError
from rlprune.utils.imports import require


def export_piece(name: str, module: nn.Module, inputs: tuple[Tensor, ...], *, n_fixed: int = 0) -> Any:
    """Export a module as an `onnx.ModelProto` whose inputs may have any first dimension.

    Args:
        name: of the module, for messages.
        module: what is exported.
        inputs: examples, each (2, ...).
        n_fixed: how many inputs, the last ones, have the shape of their example in any case.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        RLPruneError: the module does something that ONNX has no operator for.
    """
    require("onnxscript", "onnx")
    batch = torch.export.Dim("n", max=2**31 - 1)  # without a bound torch 2.6 fails on slices
    n_batched = len(inputs) - n_fixed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=tuple({0: batch} if index < n_batched else None for index in range(len(inputs))),
                verbose=False,
                optimize=True,  # as later versions than torch 2.6 do unasked
            )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise RLPruneError(f"{name} cannot be exported to ONNX: {reason}") from error
    assert program is not None
    model = require("onnx.inliner", "onnx").inline_local_functions(program.model_proto)
    _keep_padding(model.graph)
    for part in (*model.graph.node, model.graph, model):
        part.ClearField("metadata_props")  # where in torch everything came from: a tenth of a small file
    del model.graph.value_info[:]
    return model


def _keep_padding(graph: Any) -> None:
    """Keep onnxruntime from taking a pad by zeros into the max pool behind it, which would pad with minus infinity.

    Its optimiser does so wherever one follows the other; a maximum with the lowest number stands between them then.
    """
    helper = require("onnx.helper", "onnx")
    padded = {node.output[0] for node in graph.node if node.op_type == "Pad"}
    nodes = []
    for node in graph.node:
        if node.op_type == "MaxPool" and node.input[0] in padded:
            same, lowest = (f"{node.output[0]}_{name}" for name in ("padded", "lowest"))
            value = helper.make_tensor(lowest, 1, [], [torch.finfo(torch.float32).min])  # 1: float
            graph.initializer.append(value)
            nodes.append(helper.make_node("Max", [node.input[0], lowest], [same]))
            node.input[0] = same
        nodes.append(node)
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def check_calibration(images: Tensor, image_shape: tuple[int, ...]) -> None:
    """Make sure that images can calibrate int8.

    Raises:
        DataError: there are none, or they are no uint8 (N, C, H, W) of this shape.
    """
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != image_shape:
        shape = ", ".join(map(str, image_shape))
        raise DataError(
            f"calibration images are {images.dtype} of shape {tuple(images.shape)}; uint8 (N, {shape}) is needed"
        )
    if not len(images):
        raise DataError("int8 needs calibration images, and there are none; some hundreds are enough")


def as_function(name: str, piece: Any, n_outputs: int, shared: Sequence[str] = ()) -> Any:
    """An exported module as a function of the file, whose further inputs are the shared weights that it reads."""
    helper = require("onnx.helper", "onnx")
    graph = piece.graph
    weights = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
    return helper.make_function(
        DOMAIN,
        name,
        [*(each.name for each in graph.input), *shared],
        [each.name for each in graph.output][:n_outputs],
        [*weights, *graph.node],
        [helper.make_opsetid("", OPSET)],
    )
