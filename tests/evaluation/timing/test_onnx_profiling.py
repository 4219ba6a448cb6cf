"""The pieces of a call in onnxruntime; `tests/cli/test_bench.py` has a whole profile, as it has a file at hand."""

from __future__ import annotations

from typing import Any

import pytest
from nets import make_data, make_elastic, make_levels, make_policy

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import RLPruneError
from rlprune.evaluation.timing import profile, profiling
from rlprune.evaluation.timing.onnx_profiling import piece_shares
from rlprune.utils.notes import heard


def record(operator: str, name: str, start: int, took: int) -> dict[str, Any]:
    """As onnxruntime's profiler writes it, in microseconds."""
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": took, "args": {"op_name": operator}}


def call(start: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": 90, "args": {}}


RECORDS = [
    call(0),
    record("Conv", "features_nchwc", 1, 80),
    call(100),
    record("Mul", "_inlfunc_start__inlfunc_pixels_node_mul", 101, 1),
    record("Relu", "_inlfunc_start__inlfunc_stem_node_relu", 102, 1),
    record("Conv", "features_nchwc", 103, 20),
    record("ReorderOutput", "ReorderOutput", 123, 4),
    record("Slice", "_inlfunc_observe_node_slice", 127, 0),
    record("FusedGemm", "fused _inlfunc_decide_node_linear", 127, 1),
    record("Gather", "_inlfunc_decide_node_select", 128, 2),
    record("Loop", "Loop_14", 130, 40),
    record("If", "_inlfunc_run_n13", 131, 30),
    record("Gather", "_inlfunc_run_n0", 132, 3),
    record("Gemm", "_inlfunc_run__inlfunc_profile_1_node_linear", 136, 10),
    record("Add", "_inlfunc_run__inlfunc_profile_1_node_add", 146, 5),
    record("ScatterND", "ScatterND_3", 160, 1),
    record("Softmax", "Softmax_19", 171, 2),
]


def test_each_operator_counts_for_one_piece_and_those_that_hold_others_for_none() -> None:
    pieces = piece_shares(reversed(RECORDS), 1, 0.1)
    in_percent = {name: round(100 * share) for name, share in pieces.items()}
    assert in_percent == {"multiply": 30, "reorder": 4, "layers": 7, "gather": 4, "decide": 5, "between": 50}
    assert piece_shares(RECORDS, 2, 0.1)["multiply"] == pytest.approx(0.55)


def test_a_network_that_cannot_be_exported_is_profiled_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(dynamic: DynamicCNN) -> None:
        raise RLPruneError("ONNX has no operator for it")

    monkeypatch.setattr(profiling, "OnnxProfile", refused)
    elastic, data = make_elastic("plain"), make_data(4)
    policy = make_policy(elastic, data, make_levels(elastic, 2), max_passes=1)
    dynamic = DynamicCNN(elastic, policy, data.mean, data.std, data.classes)
    with heard() as lines:
        results = profile(dynamic, data.images, (2,), seconds=0, onnx=True)
    assert lines == ["onnxruntime is left out: ONNX has no operator for it"]
    assert "onnxruntime" not in results.to_json() and "versions" not in results.to_json()
