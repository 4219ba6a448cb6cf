"""One ONNX file that holds preprocessing, policy and every profile, and takes any batch.

Torch exports the pieces: start (pixels to the stem's features), decide, and the body of every profile. They become
functions of the file. What is written here joins them: a `Loop` over passes, in which the images that chose a profile
are gathered and run through its body inside an `If`, so a profile that no image chose costs nothing. A first pass that
is the same for all images comes before the loop, with nothing gathered at all.
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
from rlprune.deployment.onnx_graph import DOMAIN, IR_VERSION, OPSET, GraphSpec, ask_function, main_graph, run_function
from rlprune.deployment.quantisation import quantised
from rlprune.errors import DataError, RLPruneError
from rlprune.utils.files import atomic_write
from rlprune.utils.imports import require

_AT_ONCE = 64
"""Calibration images that go through the stem together."""


def save_onnx(path: Path, dynamic: DynamicCNN, calibration: Tensor | None = None) -> None:
    """Write a network with its policy as one ONNX file, which needs neither torch nor this library.

    | name | shape | what |
    |---|---|---|
    | `images` in | uint8 (B, C, H, W) | pixels |
    | `logits` out | float32 (B, classes) | what is believed in the end |
    | `profiles` out | int64 (B, max_passes) | index into the codebook of every pass; -1 where there was none |
    | `macs` out | int64 (B,) | multiply-adds, those of the policy and of every pass included |

    Its metadata `rlprune` is JSON: `classes`, `keep_ratios` (of every profile, for every group), `prices` (parameters
    and multiply-adds of `stem`, `bodies`, `decision` and the `dense` network).

    Args:
        path: file to write.
        dynamic: the network with its policy.
        calibration: images, uint8 (N, C, H, W), not for testing; with them all profiles compute in int8
            (`rlprune.deployment.quantisation`), stem and policy in float32 still.

    Raises:
        DataError: other images than the network takes, or none.
        MissingExtraError: onnx or onnxscript is not installed.
        RLPruneError: the network holds something that ONNX has no operator for.
    """
    content = to_onnx(dynamic, calibration)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def to_onnx(dynamic: DynamicCNN, calibration: Tensor | None = None) -> bytes:
    """What `save_onnx` writes."""
    if dynamic.dtype != torch.float32:
        raise RLPruneError(f"this network computes in {dynamic.dtype}; only one in torch.float32 can be exported")
    seen_in_use = None if calibration is None else _features(dynamic, calibration)
    onnx = require("onnx", "onnx")
    parser, helper = require("onnx.parser", "onnx"), require("onnx.helper", "onnx")
    images = torch.zeros(2, *dynamic.elastic.image_shape, dtype=torch.uint8)
    start = _Start(dynamic)
    features, seen = start(images)
    beliefs = torch.zeros(2, dynamic.elastic.n_classes)
    new_beliefs, passes, spent = beliefs.clone(), *torch.zeros(2, 2, dtype=torch.int64)
    functions = [
        _function("start", export_piece("start", start, (images,)), 2),
        _function("decide", export_piece("decide", _Decide(dynamic), (seen, beliefs, passes, spent)), 2),
        _function("believe", export_piece("believe", _Believe(dynamic), (beliefs, new_beliefs, passes)), 1),
        *(
            _function(f"profile_{k}", body if seen_in_use is None else quantised(body, seen_in_use), 1)
            for k, body in enumerate(export_bodies(dynamic, features))
        ),
        *map(parser.parse_function, (ask_function(), run_function(len(dynamic.slices), dynamic.elastic.n_classes))),
    ]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(
        parser.parse_graph(main_graph(_spec(dynamic))),
        opset_imports=opsets,
        functions=functions,
        ir_version=IR_VERSION,
        producer_name="rlprune",
    )
    notes = {
        "classes": dynamic.classes,
        "keep_ratios": torch.tensor(dynamic.elastic.keep_ratios)[dynamic.codebook].tolist(),
        "prices": {name: [part.tolist() for part in price] for name, price in dynamic.prices._asdict().items()},
    }
    helper.set_model_props(model, {"rlprune": json.dumps(notes)})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _spec(dynamic: DynamicCNN) -> GraphSpec:
    """What the graph that joins the pieces needs to know."""
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
    """Pixels uint8 (B, C, H, W) -> features of the stem, and what the policy sees of them."""

    def __init__(self, dynamic: DynamicCNN) -> None:
        super().__init__()
        self.dynamic, self.stem = dynamic, dynamic.slices.stem

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features: Tensor = self.stem(self.dynamic.normalise(images))
        return features, self.dynamic.policy.observer.features(features)


class _Decide(nn.Module):
    """What is seen, believed, made and spent -> index of a profile int64 (n,), and whether to accept, bool (n,)."""

    def __init__(self, dynamic: DynamicCNN) -> None:
        super().__init__()
        self.policy, self.dense_macs = dynamic.policy, int(dynamic.prices.dense.macs)

    def forward(self, seen: Tensor, believed: Tensor, passes: Tensor, spent: Tensor) -> tuple[Tensor, Tensor]:
        observation = self.policy.observer.observe(seen, believed, passes, spent / self.dense_macs)
        choice, accept = self.policy(observation)
        return choice, accept


class _Believe(nn.Module):
    """What was believed (n, classes), and the logits of one more pass -> what is believed then."""

    def __init__(self, dynamic: DynamicCNN) -> None:
        super().__init__()
        self.observer = dynamic.policy.observer

    def forward(self, before: Tensor, logits: Tensor, passes: Tensor) -> Tensor:
        return self.observer.believe(before, logits, passes)


def export_piece(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """A module as an `onnx.ModelProto` of its own; the first dimension of all inputs (2, ...) is free.

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
        raise RLPruneError(f"ONNX cannot say what {name} does: {reason}") from error
    assert program is not None
    model = require("onnx.inliner", "onnx").inline_local_functions(program.model_proto)
    for part in (*model.graph.node, model.graph, model):
        part.ClearField("metadata_props")  # where in torch everything came from: a tenth of a small file
    del model.graph.value_info[:]
    return model


def export_bodies(dynamic: DynamicCNN, features: Tensor) -> Iterator[Any]:
    """The body of every profile as an `onnx.ModelProto` of its own, by two images' features (2, F, H', W')."""
    for k in range(len(dynamic.slices)):
        yield export_piece(f"profile {k}", dynamic.slices.prepared(k), (features,))


@torch.inference_mode()
def _features(dynamic: DynamicCNN, images: Tensor) -> Tensor:
    """What bodies see of images, uint8 (N, C, H, W) -> float32 (N, F, H', W')."""
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != dynamic.image_shape:
        wanted = ", ".join(map(str, dynamic.image_shape))
        raise DataError(
            f"calibration images are {images.dtype} of shape {tuple(images.shape)}; uint8 (N, {wanted}) is needed"
        )
    parts = [dynamic.slices.stem(dynamic.normalise(part).to(dynamic.device)) for part in images.split(_AT_ONCE)]
    return torch.cat(parts).cpu().contiguous() if parts else torch.empty(0, *dynamic.elastic.feature_shape)


def _function(name: str, piece: Any, n_outputs: int) -> Any:
    """An exported module as a function of the file."""
    helper, graph = require("onnx.helper", "onnx"), piece.graph
    weights = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
    return helper.make_function(
        DOMAIN,
        name,
        [each.name for each in graph.input],
        [each.name for each in graph.output][:n_outputs],
        [*weights, *graph.node],
        [helper.make_opsetid("", OPSET)],
    )
