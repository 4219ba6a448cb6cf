"""Where the time of a dynamic network goes, piece by piece, beside what its slices take alone.

May import what `rlprune.evaluation` may.
"""

from rlprune.evaluation.timing.profile_results import BodyTime, PieceTime, ProfileResult, ProfileRow
from rlprune.evaluation.timing.profiling import profile

__all__ = ["BodyTime", "PieceTime", "ProfileResult", "ProfileRow", "profile"]
