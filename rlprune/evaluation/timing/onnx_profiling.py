"""Where the time of an exported file goes in onnxruntime: beside its slices alone, and by kinds of operators."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.pieces import session
from rlprune.deployment.onnx.static import body_alone
from rlprune.evaluation.timing.backends import onnx_module
from rlprune.evaluation.timing.profile_results import ONNX_PIECES, OnnxRow, PieceShare
from rlprune.evaluation.timing.runner import Run, bodies_alone, call_time, on_each, onnx_file, onnx_plain
from rlprune.utils.timing import interleaved

_LEAST_CALLS = 16
"""Calls whose operators are timed."""
_HOLDERS = ("If", "Loop")
"""Operators whose time is that of those in them."""
_KINDS = {
    "multiply": re.compile("Conv|Gemm|MatMul"),
    "reorder": re.compile("Reorder"),
    "gather": re.compile("Gather|Scatter|Compress"),
}
"""Operators of each kind, of whatever function, but for the policy's."""
_OF_POLICY = re.compile(r"_decide_")
_OF_SLICES = re.compile(r"_(start|pixels|stem|profile_\d+)_|^features_")
"""How the names of operators begin that onnxruntime takes out of the file's functions."""


class OnnxProfile:
    """A dynamic network as a file in onnxruntime; beside it each of its slices, and the dense network, on their own.

    Args:
        dynamic: the network with its policy.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        RLPruneError: the network is on another device than the processor, or cannot be exported.
    """

    def __init__(self, dynamic: DynamicCNN) -> None:
        self._dynamic = dynamic
        self._model = onnx_file(dynamic)
        self._dense = onnx_plain(dynamic.elastic.slice(dynamic.elastic.full), dynamic)
        self._stem = onnx_module(dynamic.slices.stem, torch.zeros(1, *dynamic.image_shape))
        self._bodies = [self._body(index) for index in range(len(dynamic.slices))]

    def row(self, batches: Sequence[Tensor], seconds: float) -> OnnxRow:
        """Time everything.

        Args:
            batches: of images, uint8 (B, C, H, W) each.
            seconds: for the times; the profiler takes some more.
        """
        found = [self._model(images) for images in batches]
        prepared = [self._dynamic.normalise(images).contiguous() for images in batches]
        features = torch.cat([self._dynamic.slices.stem(images) for images in prepared])
        profiles = torch.cat([prediction.profiles for prediction in found])
        alone = bodies_alone(self._bodies, features, profiles, len(batches[0]), torch.contiguous_format)
        rows = {"dense": on_each(self._dense, prepared), "dynamic": on_each(self._model, batches)}
        times = interleaved(rows | {"stem": on_each(self._stem, prepared)} | alone, seconds)
        timed_ms, n_calls, records = self._recorded(batches)
        shares = piece_shares(records, n_calls, timed_ms)
        return OnnxRow(
            **call_time("onnxruntime", batches, found, times),
            timed_ms=timed_ms,
            pieces=tuple(PieceShare(name=name, share=share) for name, share in shares.items()),
        )

    def _body(self, index: int) -> Run:
        content = body_alone(self._model.content, index, self._dynamic.elastic.feature_shape)
        runs = session(content, torch.get_num_threads(), spin=True)
        name = runs.get_inputs()[0].name
        return lambda features: runs.run(None, {name: features.numpy()})

    def _recorded(self, batches: Sequence[Tensor]) -> tuple[float, int, list[dict[str, Any]]]:
        """Mean milliseconds of calls under onnxruntime's profiler, how many there were, and its records."""
        n_repeats = -(-_LEAST_CALLS // len(batches))
        n_calls = n_repeats * len(batches)
        with TemporaryDirectory() as folder:
            model = _RecordedCNN(self._model, Path(folder) / "operators")
            on_each(model, batches)()  # the first calls take memory
            start = time.perf_counter()
            for _ in range(n_repeats):
                on_each(model, batches)()
            took = (time.perf_counter() - start) * 1e3
            records = json.loads(Path(model.session.end_profiling()).read_text())
        return took / n_calls, n_calls, records


class _RecordedCNN(OnnxCNN):
    """Predicts as the file that it is made of, under onnxruntime's profiler."""

    def __init__(self, model: OnnxCNN, records: Path) -> None:
        self.__dict__.update(model.__dict__)
        self._recorded = session(model.content, torch.get_num_threads(), spin=True, records=records)

    @property
    def session(self) -> Any:
        """The session whose operators are timed."""
        return self._recorded


def piece_shares(records: Iterable[Mapping[str, Any]], n_calls: int, ms: float) -> dict[str, float]:
    """The shares of the pieces of a call, in the order of `ONNX_PIECES`.

    Args:
        records: of onnxruntime's profiler, of one thread.
        n_calls: the last ones count, so many.
        ms: mean milliseconds of these calls.
    """
    records = sorted(records, key=lambda record: int(record["ts"]))
    starts = [record["ts"] for record in records if record["name"] == "model_run"]
    found = dict.fromkeys(ONNX_PIECES, 0.0)
    for record in records:
        if record["cat"] == "Node" and record["ts"] >= starts[-n_calls]:
            operator = record["args"]["op_name"]
            if operator not in _HOLDERS:
                found[_piece(operator, record["name"])] += record["dur"] / 1e3 / (n_calls * ms)
    return found | {"between": 1 - sum(found.values())}


def _piece(operator: str, name: str) -> str:
    """Which piece an operator belongs to, by its type and by its name, which begins with that of its function."""
    if _OF_POLICY.search(name):
        return "decide"
    of_slices = "layers" if _OF_SLICES.search(name) else "decide"
    return next((kind for kind, operators in _KINDS.items() if operators.search(operator)), of_slices)
