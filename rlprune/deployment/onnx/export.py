"""Exports preprocessing, policy and every profile as one ONNX file that takes batches of any size.

Torch exports the parts: start (pixels to the stem's features), decide, combine (logits of two passes), and the body of
every profile. They become functions of the file. `rlprune.deployment.onnx.graph` writes the graph that joins them: a
`Loop` over passes, in which the images that chose a profile are gathered and run through its body inside an `If`, so
that a profile which no image chose costs nothing. A first pass that is the same for all images comes before the loop,
with nothing to gather.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.graph import (
    DOMAIN,
    IR_VERSION,
    OPSET,
    GraphSpec,
    decide_function,
    main_graph,
    run_function,
)
from rlprune.deployment.quantisation import quantised
from rlprune.errors import BundleError, DataError, RLPruneError
from rlprune.utils.files import atomic_write
from rlprune.utils.imports import require

_AT_ONCE = 64
"""Calibration images that run through the stem together."""


def save_onnx(path: str | Path, dynamic: DynamicCNN, calibration: Tensor | None = None) -> None:
    """Write a network with its policy as one ONNX file, which needs neither torch nor this library.

    | name | shape | what |
    |---|---|---|
    | `images` in | uint8 (B, C, H, W) | pixels |
    | `logits` out | float32 (B, classes) | logits of the final predictions |
    | `profiles` out | int64 (B, max_passes) | index into the codebook of every pass; -1 where there was none |
    | `macs` out | int64 (B,) | MACs, those of the policy and of every pass included |

    Its metadata `rlprune` is JSON: `classes`, `keep_ratios` (of every profile, for every group), `prices` (parameters
    and MACs of `stem`, `bodies`, `decision` and the `dense` network), and `preprocessing` where the network has its
    own: how pictures come to their size, and the order in which it reads channels (pixels are RGB in any case).

    Args:
        path: file to write.
        dynamic: the network with its policy.
        calibration: images uint8 (N, C, H, W), not of the test set; with them all profiles compute in int8
            (`rlprune.deployment.quantisation`), while stem and policy stay in float32.

    Raises:
        DataError: calibration images that the network does not take, or none.
        MissingExtraError: onnx or onnxscript is not installed.
        RLPruneError: the network does not compute in float32, or holds something that ONNX has no operator for.
    """
    content = to_onnx(dynamic, calibration)
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(content)


def to_onnx(dynamic: DynamicCNN, calibration: Tensor | None = None) -> bytes:
    """The content of the file that `save_onnx` writes; arguments and errors are the same."""
    if dynamic.dtype != torch.float32:
        raise RLPruneError(f"this network computes in {dynamic.dtype}; only one in torch.float32 can be exported")
    calibration_features = None if calibration is None else _features(dynamic, calibration)
    onnx = require("onnx", "onnx")
    helper = require("onnx.helper", "onnx")
    model = helper.make_model(
        require("onnx.parser", "onnx").parse_graph(main_graph(_spec(dynamic))),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        functions=_functions(dynamic, calibration_features),
        ir_version=IR_VERSION,
        producer_name="rlprune",
    )
    notes = {
        "classes": dynamic.classes,
        "keep_ratios": torch.tensor(dynamic.elastic.keep_ratios)[dynamic.codebook].tolist(),
        "prices": {name: [part.tolist() for part in price] for name, price in dynamic.prices._asdict().items()},
    }
    preprocessing = dynamic.preprocessing.to_json()
    if preprocessing:
        notes["preprocessing"] = preprocessing
    file = require("rlprune.deployment.onnx.file")
    helper.set_model_props(model, {file.NOTES: json.dumps(notes), file.CHECKSUM: "0" * 64})
    onnx.checker.check_model(model, full_check=True)
    content = file.signed(bytes(model.SerializeToString()))
    try:
        file.checked("it", content)
    except BundleError as error:
        raise RLPruneError(f"this network cannot be stored in an ONNX file that is safe to read: {error}") from error
    return bytes(content)


def _functions(dynamic: DynamicCNN, calibration_features: Tensor | None) -> list[Any]:
    """The functions of the file: the exported parts, in int8 if there are calibration features, and what joins them."""
    images = torch.zeros(2, *dynamic.elastic.image_shape, dtype=torch.uint8)
    start = _Start(dynamic)
    features, observed = start(images)
    logits = torch.zeros(2, dynamic.elastic.n_classes)
    new_logits = torch.zeros(2, dynamic.elastic.n_classes)
    passes = torch.zeros(2, dtype=torch.int64)
    spent = torch.zeros(2, dtype=torch.int64)
    functions = [
        _function("start", export_piece("start", start, (images,)), 2),
        _function("decide", export_piece("decide", _Decide(dynamic), (observed, logits, passes, spent)), 2),
        _function("combine", export_piece("combine", _Combine(dynamic), (logits, new_logits, passes)), 1),
    ]
    for k, body in enumerate(export_bodies(dynamic, features)):
        piece = body if calibration_features is None else quantised(body, calibration_features)
        functions.append(_function(f"profile_{k}", piece, 1))
    parse = require("onnx.parser", "onnx").parse_function
    functions.append(parse(decide_function()))
    functions.append(parse(run_function(len(dynamic.slices), dynamic.elastic.n_classes)))
    return functions


def _spec(dynamic: DynamicCNN) -> GraphSpec:
    """The properties of a network that the joining graph depends on."""
    prices = dynamic.prices
    return GraphSpec(
        image_shape=dynamic.image_shape,
        n_classes=dynamic.elastic.n_classes,
        max_passes=dynamic.policy.observer.max_passes,
        first=dynamic.first,
        stem_macs=int(prices.stem.macs),
        body_macs=tuple(prices.bodies.macs.tolist()),
        decision_macs=int(prices.decision.macs),
    )


class _Start(nn.Module):
    """Pixels uint8 (B, C, H, W) -> features of the stem, and the features that the policy observes."""

    def __init__(self, dynamic: DynamicCNN) -> None:
        super().__init__()
        self.dynamic = dynamic
        self.stem = dynamic.slices.stem

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features: Tensor = self.stem(self.dynamic.normalise(images))
        return features, self.dynamic.policy.observer.features(features)


class _Decide(nn.Module):
    """Observed features, logits so far, passes, MACs spent -> profile int64 (n,), and whether to accept, bool (n,)."""

    def __init__(self, dynamic: DynamicCNN) -> None:
        super().__init__()
        self.policy = dynamic.policy
        self.dense_macs = int(dynamic.prices.dense.macs)

    def forward(self, observed: Tensor, logits: Tensor, passes: Tensor, spent: Tensor) -> tuple[Tensor, Tensor]:
        observation = self.policy.observer.observe(observed, logits, passes, spent / self.dense_macs)
        choice, accept = self.policy(observation)
        return choice, accept


class _Combine(nn.Module):
    """Logits so far (n, classes), and those of one more pass -> logits of the prediction after it."""

    def __init__(self, dynamic: DynamicCNN) -> None:
        super().__init__()
        self.observer = dynamic.policy.observer

    def forward(self, before: Tensor, logits: Tensor, passes: Tensor) -> Tensor:
        return self.observer.believe(before, logits, passes)


def export_piece(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """Export a module as an `onnx.ModelProto` whose inputs may have any first dimension.

    Args:
        name: of the module, for messages.
        module: what is exported.
        inputs: examples, each (2, ...).

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        RLPruneError: the module does something that ONNX has no operator for.
    """
    require("onnxscript", "onnx")
    batch = torch.export.Dim("n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                verbose=False,
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


def export_bodies(dynamic: DynamicCNN, features: Tensor) -> Iterator[Any]:
    """Export the body of every profile as an `onnx.ModelProto`; features are those of two images, (2, F, H', W')."""
    for k in range(len(dynamic.slices)):
        yield export_piece(f"profile {k}", dynamic.slices.prepared(k), (features,))


@torch.inference_mode()
def _features(dynamic: DynamicCNN, images: Tensor) -> Tensor:
    """The stem's features of images, uint8 (N, C, H, W) -> float32 (N, F, H', W')."""
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != dynamic.image_shape:
        shape = ", ".join(map(str, dynamic.image_shape))
        raise DataError(
            f"calibration images are {images.dtype} of shape {tuple(images.shape)}; uint8 (N, {shape}) is needed"
        )
    parts = [dynamic.slices.stem(dynamic.normalise(part).to(dynamic.device)) for part in images.split(_AT_ONCE)]
    return torch.cat(parts).cpu().contiguous() if parts else torch.empty(0, *dynamic.elastic.feature_shape)


def _function(name: str, piece: Any, n_outputs: int) -> Any:
    """An exported module as a function of the file."""
    helper = require("onnx.helper", "onnx")
    graph = piece.graph
    weights = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
    return helper.make_function(
        DOMAIN,
        name,
        [each.name for each in graph.input],
        [each.name for each in graph.output][:n_outputs],
        [*weights, *graph.node],
        [helper.make_opsetid("", OPSET)],
    )
