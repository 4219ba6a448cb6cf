"""Parts of a network as models of ONNX, exported by torch, as functions of a file, and run."""

from __future__ import annotations

import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlprune.deployment.onnx.graph import DOMAIN, OPSET
from rlprune.errors import DataError, RLPruneError
from rlprune.utils.imports import require

_OPERATION = re.compile(r"\b(?:aten|prims|torchvision|quantized)[.:]+[a-z_0-9]+")
"""What errors of torch call an operation."""
_MOST_SAID = 300
_REGISTRY = "torch.onnx._internal.exporter._registration"
"""What logs a line for each operator of torchvision, at every export, where that is not installed."""


def session(content: bytes, n_threads: int, *, spin: bool, records: Path | None = None) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        content: of the file.
        n_threads: threads inside an operator; 0 lets onnxruntime choose.
        spin: let threads wait busily between the operators of a call; not between calls.
        records: how the name of a file begins that says how long each operator took, written when the session's
            `end_profiling` is called; it slows small operators down.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 4  # what is wrong is raised, too
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if records is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(records)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def export_piece(
    name: str, module: nn.Module, inputs: tuple[Tensor, ...], *, n_fixed: int = 0, integers: bool = False
) -> Any:
    """Export a module as an `onnx.ModelProto` whose inputs may have any first dimension.

    Args:
        name: of the module, for messages.
        module: what is exported.
        inputs: examples, each (2, ...).
        n_fixed: how many inputs, the last ones, have the shape of their example in any case.
        integers: whether it will be quantised; what has no weights then gets none.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        RLPruneError: the module does something that ONNX has no operator for.
    """
    require("onnxscript", "onnx")
    batch = torch.export.Dim("n", max=2**31 - 1)  # without a bound torch 2.6 fails on slices
    n_batched = len(inputs) - n_fixed
    try:
        with warnings.catch_warnings(), _registry_hushed(), redirect_stderr(StringIO()):  # where torch prints graphs
            warnings.simplefilter("ignore")
            traced = torch.export.export(
                module.eval(),
                inputs,
                dynamic_shapes=tuple({0: batch} if index < n_batched else None for index in range(len(inputs))),
                strict=False,
            )
            _pool_by_means(traced.graph)
            _norm_by_scales(traced.graph)
            if not integers:
                _convolve_shortcuts(traced.graph)
            program = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                optimize=True,  # as later versions than torch 2.6 do unasked
            )
    except Exception as error:
        raise RLPruneError(f"{name} cannot be exported to ONNX: {_reason(error)}") from error
    assert program is not None
    model = require("onnx.inliner", "onnx").inline_local_functions(program.model_proto)
    _keep_padding(model.graph)
    for part in (*model.graph.node, model.graph, model):
        part.ClearField("metadata_props")  # where in torch everything came from: a tenth of a small file
    del model.graph.value_info[:]
    return model


@contextmanager
def _registry_hushed() -> Iterator[None]:
    """Let torch's registry of operators say errors alone."""
    logger = logging.getLogger(_REGISTRY)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _pool_by_means(graph: fx.Graph) -> None:
    """Let pooling to one value be a mean, which it is: torch 2.8 and before write it with strides, as a loop."""
    pooling, mean = torch.ops.aten.adaptive_avg_pool2d.default, torch.ops.aten.mean.dim
    for node in graph.find_nodes(op="call_function", target=pooling):
        if list(node.args[1]) == [1, 1]:
            node.target, node.args = mean, (node.args[0], [-2, -1], True)


def _norm_by_scales(graph: fx.Graph) -> None:
    """Let a batch norm that no convolution takes in be a scale and a shift: torch 2.6 can write it in no other way."""
    aten = torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten.batch_norm.default):
        x, weight, bias, mean, var, _, _, eps, _ = node.args
        shape = [1, -1, *(1,) * (node.meta["val"].ndim - 2)]
        with graph.inserting_before(node):
            spread = graph.call_function(aten.rsqrt.default, (graph.call_function(aten.add.Scalar, (var, eps)),))
            scale = graph.call_function(aten.mul.Tensor, (weight, spread))
            shift = graph.call_function(aten.sub.Tensor, (bias, graph.call_function(aten.mul.Tensor, (mean, scale))))
            scaled = graph.call_function(
                aten.mul.Tensor, (x, graph.call_function(aten.reshape.default, (scale, shape)))
            )
        node.target, node.args = aten.add.Tensor, (scaled, None)
        with graph.inserting_before(node):
            node.args = (scaled, graph.call_function(aten.reshape.default, (shift, shape)))


def _convolve_shortcuts(graph: fx.Graph) -> None:
    """Let shortcuts that leave out pixels and add channels of zeros be convolutions, whose weights are ones and zeros.

    ResNets for CIFAR-10 have them (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, option A).
    onnxruntime computes convolutions, and sums behind them, in a memory layout of their own, and goes back to the plain
    one for anything else, which takes more time than the products with zeros.
    """
    aten = torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten.pad.default):
        padded, (*beside, first, last), mode, value = _arguments(node, None, (0, 0), "constant", None)
        source, strides = _strided(padded)
        by_zeros = mode == "constant" and not value and not node.kwargs
        if not strides or not by_zeros or len(beside) != 4 or any(beside) or min(first, last) < 0:
            continue
        n = source.meta["val"].shape[1]
        with graph.inserting_before(node):
            ones = graph.call_function(aten.eye.default, (n,))
            rows = graph.call_function(aten.pad.default, (ones, [0, 0, first, last]))
            weight = graph.call_function(aten.reshape.default, (rows, [first + n + last, n, 1, 1]))
        node.target, node.args = aten.conv2d.default, (source, weight, None, [strides.get(2, 1), strides.get(3, 1)])
    graph.eliminate_dead_code()


def _strided(node: fx.Node) -> tuple[fx.Node, dict[int, int]]:
    """What slices take every so many rows or columns of, from the first on; and how many, of each dimension, 2 or 3."""
    strides: dict[int, int] = {}
    while node.target is torch.ops.aten.slice.Tensor:
        source, dim, start, end, step = _arguments(node, None, 0, None, None, 1)
        whole = not start and end in (None, sys.maxsize)
        if not whole or (step > 1 and dim not in (2, 3)) or dim in strides:
            break
        node, strides = source, strides | ({dim: step} if step > 1 else {})
    return node, strides


def _arguments(node: fx.Node, *defaults: Any) -> tuple[Any, ...]:
    """The arguments of a call, those that are not given being the defaults."""
    return (*node.args, *defaults[len(node.args) :])


def _reason(error: BaseException) -> str:
    """Why an export failed, in a line: which operation or line of code, where errors tell, and what began it all."""
    chain = [error]
    while (before := chain[-1].__cause__) is not None:
        chain.append(before)
    texts = [str(each).strip() for each in chain]
    named = next((found for text in reversed(texts) for found in _OPERATION.findall(text)), None)
    line = next((text for text in reversed(texts) if text), type(error).__name__).partition("\n")[0]
    said = shorten(line if named is None or named in line else f"{named}: {line}", _MOST_SAID)
    return said + _place(chain[-1])


def _place(error: BaseException) -> str:
    """The line of a user's code in which an error arose, if it did in one."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(Path(frame.filename))]
    return f" (line {frames[-1].lineno} of {frames[-1].filename}: {frames[-1].line})" if frames else ""


def _is_users(path: Path) -> bool:
    """Whether a file of Python is neither installed nor one of this project's."""
    return "site-packages" not in path.parts and Path(__file__).parents[2] not in path.parents


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
