"""Measuring: accuracy beside controls at equal cost, time beside the dense network, tables and pictures of both.

May import `rlprune.baselines` and below.
"""

from rlprune.deployment.image_sets import predict_all
from rlprune.evaluation.benchmark import bench, bench_adapt
from rlprune.evaluation.controls import Controls
from rlprune.evaluation.dynamic import evaluate, evaluate_alone
from rlprune.evaluation.gated import evaluate_gated
from rlprune.evaluation.results import (
    BundleResult,
    DecisionFigures,
    DenseResult,
    EvaluationResult,
    GatedResult,
    RecipeResult,
    StaticResult,
)
from rlprune.evaluation.static import evaluate_dense, evaluate_static, static_points
from rlprune.evaluation.timing_results import (
    AdaptBenchmark,
    BenchmarkResult,
    BenchmarkRow,
    CallersBenchmark,
    ComparisonResult,
)

__all__ = [
    "AdaptBenchmark",
    "BenchmarkResult",
    "BenchmarkRow",
    "BundleResult",
    "CallersBenchmark",
    "ComparisonResult",
    "Controls",
    "DecisionFigures",
    "DenseResult",
    "EvaluationResult",
    "GatedResult",
    "RecipeResult",
    "StaticResult",
    "bench",
    "bench_adapt",
    "evaluate",
    "evaluate_alone",
    "evaluate_dense",
    "evaluate_gated",
    "evaluate_static",
    "predict_all",
    "static_points",
]
