"""An ordinary network as an ONNX file of the same contract as a dynamic one: the same for every image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from rlprune.data.image_set import InputFormat, PixelScale
from rlprune.deployment.onnx.assembly import FileParts, assembled
from rlprune.deployment.onnx.graph import DOMAIN, static_graph
from rlprune.deployment.onnx.pieces import as_function, check_calibration, export_piece
from rlprune.deployment.onnx.resizing import check_resizable, resize_function
from rlprune.deployment.quantisation import quantised
from rlprune.errors import RLPruneError
from rlprune.graph.folding import fold_for_teacher, fold_norms
from rlprune.policies.passes import CostBreakdown
from rlprune.profiles.cost import ComputeCost
from rlprune.utils.files import atomic_write
from rlprune.utils.imports import require


def save_static_onnx(path: str | Path, network: nn.Module, data: InputFormat, cost: ComputeCost, **more: Any) -> None:
    """Write an ordinary network as one ONNX file, which needs neither torch nor this library.

    Inputs and outputs are those of `rlprune.deployment.onnx.export.save_onnx`: `profiles` is int64 (B, 1) of zeros,
    `macs` are the same for all images, and there is no `budget`. `OnnxCNN` reads it.

    Args:
        path: file to write.
        network: as in `to_static_onnx`, like all that follow.
        data: normalisation, class names and preprocessing.
        cost: of the network.
        **more: further arguments of `to_static_onnx`.

    Raises:
        DataError: as in `to_static_onnx`.
        MissingExtraError: likewise.
        RLPruneError: likewise.
    """
    content = to_static_onnx(network, data, cost, **more)
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(content)


def to_static_onnx(
    network: nn.Module,
    data: InputFormat,
    cost: ComputeCost,
    *,
    image_shape: Sequence[int],
    dense: ComputeCost | None = None,
    calibration: Tensor | None = None,
    resize: bool = False,
) -> bytes:
    """The content of the file that `save_static_onnx` writes.

    Args:
        network: normalised images float32 (B, C, H, W) -> logits (B, classes), such as `ElasticCNN.slice` returns; it
            is copied, not changed.
        data: normalisation, class names and preprocessing; an image set has them, or what is stored with a network.
        cost: parameters and MACs of the network, scalars.
        image_shape: (C, H, W) of its images.
        dense: parameters and MACs of the network that it was made from; its own if None.
        calibration: images uint8 (N, C, H, W), not of the test set; with them it computes in int8.
        resize: let pictures of any size go in, which the file scales and cuts as the network's preprocessing says.

    Raises:
        DataError: calibration images that the network does not take, or none.
        MissingExtraError: onnx or onnxscript is not installed.
        RLPruneError: the network gives other logits than one for each class, or holds something that ONNX has no
            operator for; or, with `resize`, its preprocessing does.
    """
    shape = tuple(image_shape)
    if resize:
        check_resizable(data.preprocessing)
    if calibration is not None:
        check_calibration(calibration, shape)
    require("onnx", "onnx")
    start = PixelScale(data)
    folded = _folded(network)
    pixels = torch.zeros(2, *shape, dtype=torch.uint8)
    normalised = start(pixels)
    _check_logits(folded, normalised, data)
    piece = export_piece("network", folded, (normalised,), integers=calibration is not None)
    if calibration is not None:
        piece = quantised(piece, start(calibration))
    functions = [
        as_function("start", export_piece("start", start, (pixels,)), 1),
        as_function("profile_0", piece, 1),
    ]
    if resize:
        parse = require("onnx.parser", "onnx").parse_function
        functions.append(parse(resize_function(data.preprocessing, shape)))
    return assembled(
        FileParts(
            graph=static_graph(shape, len(data.classes), int(cost.macs), resized=resize),
            functions=functions,
            tensors=[],
            title=f"Image classifier over {len(data.classes)} classes, the same network for every image; written by "
            "rlprune",
            image_shape=shape,
            data=data,
            keep_ratios=[[1.0]],
            prices=_prices(cost, cost if dense is None else dense),
            resized=resize,
        )
    )


def body_alone(content: bytes, profile: int, feature_shape: Sequence[int]) -> bytes:
    """The body of one profile, out of the content of a file, as a file of its own: features -> logits.

    Args:
        content: of a file in float32 that `rlprune.deployment.onnx.export.save_onnx` wrote.
        profile: index into its codebook.
        feature_shape: of the stem's features, (F, H', W').

    Raises:
        MissingExtraError: onnx is not installed.
    """
    helper = require("onnx.helper", "onnx")
    model = require("onnx", "onnx").load_from_string(content)
    (body,) = (each for each in model.functions if each.name == f"profile_{profile}")
    features, *shared = body.input
    floats = helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
    graph = helper.make_graph(
        [helper.make_node(body.name, [features, *shared], ["logits"], domain=DOMAIN)],
        body.name,
        [helper.make_tensor_value_info(features, floats, ["n", *feature_shape])],
        [helper.make_tensor_value_info("logits", floats, None)],
        [tensor for tensor in model.graph.initializer if tensor.name in shared],
    )
    versions = {"ir_version": model.ir_version, "opset_imports": model.opset_import}
    return bytes(helper.make_model(graph, functions=[body], **versions).SerializeToString())


def _folded(network: nn.Module) -> nn.Module:
    """A copy on the CPU, without the norms that follow a layer, where it can be traced."""
    parts = list(network.children())
    if isinstance(network, nn.Sequential) and all(isinstance(part, fx.GraphModule) for part in parts):
        return fold_norms(network).cpu().float()
    return fold_for_teacher(network).cpu().float()


def _check_logits(network: nn.Module, images: Tensor, data: InputFormat) -> None:
    with torch.inference_mode():
        logits = network(images)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (2, len(data.classes)):
        raise RLPruneError(
            f"the network gives {shape} for two images; logits of shape {(2, len(data.classes))}, one for each class, "
            "are needed"
        )


def _prices(cost: ComputeCost, dense: ComputeCost) -> CostBreakdown:
    """All of it is the body of one profile."""
    nothing = ComputeCost(torch.tensor(0), torch.tensor(0))
    body = ComputeCost(*(torch.as_tensor(part).reshape(1) for part in cost))
    return CostBreakdown(nothing, body, nothing, ComputeCost(*map(torch.as_tensor, dense)))
