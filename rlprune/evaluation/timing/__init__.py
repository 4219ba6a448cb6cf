"""Time: where a dynamic network's goes, rivals to be timed beside it, and accuracy against milliseconds in a picture.

May import what `rlprune.evaluation` may.
"""

from rlprune.evaluation.timing.backends import LatencySettings, backend_named
from rlprune.evaluation.timing.callers import bench_callers
from rlprune.evaluation.timing.plots import frontier_in_time
from rlprune.evaluation.timing.profile_results import (
    BodyTime,
    OnnxRow,
    PieceShare,
    PieceTime,
    ProfileResult,
    ProfileRow,
)
from rlprune.evaluation.timing.profiling import profile
from rlprune.evaluation.timing.rivals import RowImages

__all__ = [
    "BodyTime",
    "LatencySettings",
    "OnnxRow",
    "PieceShare",
    "PieceTime",
    "ProfileResult",
    "ProfileRow",
    "RowImages",
    "backend_named",
    "bench_callers",
    "frontier_in_time",
    "profile",
]
