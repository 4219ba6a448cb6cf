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

from rlprune.errors import DataError, RLPruneError, require
from rlprune.files import atomic_write
from rlprune.quantise import quantised
from rlprune.runtime import DynamicCNN

OPSET = 18
"""Version of the operators that the file uses."""
_DOMAIN, _IR_VERSION = "rlprune", 10
_AT_ONCE = 64
"""Calibration images that go through the stem together."""
_INT64 = 7
"""ONNX's number of the type."""
_EMPTY = "int64[0] empty {}"
_HEAD = f'<domain: "{_DOMAIN}", opset_import: ["": {OPSET}, "{_DOMAIN}": 1]>'
"""What the text of a function of the file begins with."""


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
            (`rlprune.quantise`), stem and policy in float32 still.

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
        *map(parser.parse_function, (_ask(), _run(len(dynamic.slices), dynamic.elastic.n_classes))),
    ]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_DOMAIN, 1)]
    model = helper.make_model(
        parser.parse_graph(_graph(dynamic)),
        opset_imports=opsets,
        functions=functions,
        ir_version=_IR_VERSION,
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


def _graph(dynamic: DynamicCNN) -> str:
    """The graph that joins the pieces, in ONNX's own notation.

    What a pass leaves behind, `logits` to `chosen`, goes through a loop: those who wait run what they chose, and are
    asked again unless that was their last pass. With nobody waiting it ends.
    """
    n_classes, max_passes = dynamic.elastic.n_classes, dynamic.policy.observer.max_passes
    shape, prices = ", ".join(map(str, dynamic.elastic.image_shape)), dynamic.prices
    first_pass, n_done = (_no_pass(dynamic), 0) if dynamic.first is None else (_first_pass(dynamic, dynamic.first), 1)
    return f"""
    dynamic (uint8[B, {shape}] images) => (float[B, {n_classes}] logits, int64[B, {max_passes}] profiles, int64[B] macs)
    {{
      features, seen = {_DOMAIN}.start (images)
      zero = Constant <value_int = 0> ()
      one = Constant <value_int = 1> ()
      minus_one = Constant <value_int = -1> ()
      last_axis = Constant <value_ints = [1]> ()
      n_done = Constant <value_int = {n_done}> ()
      max_passes = Constant <value_int = {max_passes}> ()
      bodies_macs = Constant <value_ints = {prices.bodies.macs.tolist()}> ()
      n_images = Shape <start = 0, end = 1> (images)
      n_images_scalar = Squeeze (n_images)
      everyone = Range (zero, n_images_scalar, one)
      {first_pass}
      n_waiting_0 = Size (waiting_0)
      any_0 = Greater (n_waiting_0, zero)
      n_left = Sub (max_passes, n_done)
      logits, profiles, spent, waiting, chosen = Loop (
        n_left, any_0, logits_0, profiles_0, spent_0, waiting_0, chosen_0
      ) <body = one_pass (
          int64 n_turn, bool again, float[B, {n_classes}] believed, int64[B, {max_passes}] ran, int64[B] spent_before,
          int64[n] runs, int64[n] runs_what
        ) => (
          bool more, float[B, {n_classes}] believed_after, int64[B, {max_passes}] ran_after, int64[B] spent_after,
          int64[m] waits, int64[m] waits_for
        ) {{
          n_pass = Add (n_turn, n_done)
          new_logits, whose = {_DOMAIN}.run (features, runs, runs_what)
          old_logits = Gather (believed, whose)
          n_runs = Shape (runs)
          passes_made = Expand (n_pass, n_runs)
          combined = {_DOMAIN}.believe (old_logits, new_logits, passes_made)
          rows = Unsqueeze (whose, last_axis)
          believed_after = ScatterND (believed, rows, combined)

          prices = Gather (bodies_macs, runs_what)
          spent_after = ScatterElements <reduction = "add"> (spent_before, runs, prices)
          run_rows = Unsqueeze (runs, last_axis)
          run_columns = Unsqueeze (passes_made, last_axis)
          cells = Concat <axis = 1> (run_rows, run_columns)
          ran_after = ScatterND (ran, cells, runs_what)

          passes_now = Add (n_pass, one)
          asks = Less (passes_now, max_passes)
          waits, waits_for = If (asks) <
            then_branch = is_asked () => (int64[n_on] who, int64[n_on] what) {{
              who, what = {_DOMAIN}.ask (seen, runs, runs_what, believed_after, spent_after, passes_now)
            }},
            else_branch = was_last () => (int64[0] no_one, int64[0] no_profile) {{
              no_one = Constant <value = {_EMPTY}> ()
              no_profile = Constant <value = {_EMPTY}> ()
            }}
          >
          n_waits = Size (waits)
          more = Greater (n_waits, zero)
        }}>

      did_run = GreaterOrEqual (profiles, zero)
      counted = Cast <to = {_INT64}> (did_run)
      passes = ReduceSum <keepdims = 0> (counted, last_axis)
      passes_and_one = Add (passes, one)
      decisions = Min (passes_and_one, max_passes)
      decision_macs = Constant <value_int = {int(prices.decision.macs)}> ()
      deciding = Mul (decisions, decision_macs)
      macs = Add (spent, deciding)
    }}
    """


def _no_pass(dynamic: DynamicCNN) -> str:
    """What there is before any pass: nothing is believed, and every image waits for what the policy chose first."""
    return f"""
      n_classes = Constant <value_ints = [{dynamic.elastic.n_classes}]> ()
      n_passes = Constant <value_ints = [{dynamic.policy.observer.max_passes}]> ()
      logits_shape = Concat <axis = 0> (n_images, n_classes)
      profiles_shape = Concat <axis = 0> (n_images, n_passes)
      nothing = Constant <value_float = 0.0> ()
      stem_macs = Constant <value_int = {int(dynamic.prices.stem.macs)}> ()
      logits_0 = Expand (nothing, logits_shape)
      profiles_0 = Expand (minus_one, profiles_shape)
      spent_0 = Expand (stem_macs, n_images)
      waiting_0 = Identity (everyone)
      passes_0 = Expand (zero, n_images)
      chosen_0, accept_0 = {_DOMAIN}.decide (seen, logits_0, passes_0, spent_0)
    """


def _first_pass(dynamic: DynamicCNN, first: int) -> str:
    """What a first pass leaves that is the same for all images, so that none need be picked out, or asked before.

    Its profile may be run again later, by some images, so a session may hold that body's weights twice.
    """
    n_later = dynamic.policy.observer.max_passes - 1
    spent = int(dynamic.prices.stem.macs + dynamic.prices.bodies.macs[first])
    nobody = f"Constant <value = {_EMPTY}> ()"
    asks = f"waiting_0, chosen_0 = {_DOMAIN}.ask (seen, everyone, ran_first, logits_0, spent_0, one)"
    return f"""
      first = Constant <value_int = {first}> ()
      spent_first = Constant <value_int = {spent}> ()
      n_later = Constant <value_ints = [{n_later}]> ()
      logits_0 = {_DOMAIN}.profile_{first} (features)
      ran_first = Expand (first, n_images)
      first_column = Unsqueeze (ran_first, last_axis)
      later_shape = Concat <axis = 0> (n_images, n_later)
      later_columns = Expand (minus_one, later_shape)
      profiles_0 = Concat <axis = 1> (first_column, later_columns)
      spent_0 = Expand (spent_first, n_images)
      {asks if n_later else f"waiting_0 = {nobody} chosen_0 = {nobody}"}
    """


def _ask() -> str:
    """Who of the images asked, whose last pass ran `last`, goes on, and with which profile; a function of the file."""
    return f"""
    {_HEAD}
    ask (seen, asked, last, believed, spent, n_passes) => (waiting, chosen)
    {{
      seen_here = Gather (seen, asked)
      believed_here = Gather (believed, asked)
      spent_here = Gather (spent, asked)
      n_asked = Shape (asked)
      passes_here = Expand (n_passes, n_asked)
      choice, accept = {_DOMAIN}.decide (seen_here, believed_here, passes_here, spent_here)
      same = Equal (choice, last)
      done = Or (accept, same)
      goes_on = Not (done)
      waiting = Compress <axis = 0> (asked, goes_on)
      chosen = Compress <axis = 0> (choice, goes_on)
    }}
    """


def _run(n_profiles: int, n_classes: int) -> str:
    """The logits of images under the profiles they chose, and whose is which; a function of the file."""
    profiles = range(n_profiles)
    return f"""
    {_HEAD}
    run (features, runs, chosen) => (logits, whose)
    {{
      zero = Constant <value_int = 0> ()
      nothing = Constant <value_float = 0.0> ()
      nobody = Constant <value_ints = [0, {n_classes}]> ()
      no_logits = Expand (nothing, nobody)
      {"".join(_run_profile(k, n_classes) for k in profiles)}
      logits = Concat <axis = 0> ({", ".join(f"logits_of_{k}" for k in profiles)})
      whose = Concat <axis = 0> ({", ".join(f"bucket_{k}" for k in profiles)})
    }}
    """


def _run_profile(k: int, n_classes: int) -> str:
    """The part of it that runs one profile, on the images that chose it, if there are any."""
    return f"""
      index_{k} = Constant <value_int = {k}> ()
      chose_{k} = Equal (chosen, index_{k})
      bucket_{k} = Compress <axis = 0> (runs, chose_{k})
      size_{k} = Size (bucket_{k})
      any_{k} = Greater (size_{k}, zero)
      logits_of_{k} = If (any_{k}) <
        then_branch = run_{k} () => (float[n_{k}, {n_classes}] output_{k}) {{
          input_{k} = Gather (features, bucket_{k})
          output_{k} = {_DOMAIN}.profile_{k} (input_{k})
        }},
        else_branch = skip_{k} () => (float[0, {n_classes}] none_{k}) {{
          none_{k} = Identity (no_logits)
        }}
      >"""


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
        _DOMAIN,
        name,
        [each.name for each in graph.input],
        [each.name for each in graph.output][:n_outputs],
        [*weights, *graph.node],
        [helper.make_opsetid("", OPSET)],
    )
