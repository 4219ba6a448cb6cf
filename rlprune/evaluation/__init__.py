"""Measuring: accuracy beside controls at equal cost, time beside rivals, tables and plots of both.

May import `rlprune.baselines` and below.
"""

from rlprune.evaluation.benchmark import bench, bench_adapt
from rlprune.evaluation.controls import Controls
from rlprune.evaluation.dynamic import evaluate, predict_all
from rlprune.evaluation.gated import evaluate_gated
from rlprune.evaluation.static import evaluate_dense, evaluate_static

__all__ = [
    "Controls",
    "bench",
    "bench_adapt",
    "evaluate",
    "evaluate_dense",
    "evaluate_gated",
    "evaluate_static",
    "predict_all",
]
