"""Training one network in several processes: their group, their parts of a batch, norms and gradients of the whole.

The processes are those that torchrun or Ray started. In a single process everything here does nothing. May import what
`rlprune.training` may.
"""

from rlprune.training.parallel.agreement import check_alike
from rlprune.training.parallel.division import Division, Piece
from rlprune.training.parallel.group import Group, current, joined, launched
from rlprune.training.parallel.measuring import (
    shared_accuracies,
    shared_accuracy,
    shared_parts,
    shared_rows,
)
from rlprune.training.parallel.norms import OfWholeBatch
from rlprune.training.parallel.sums import average, sum_gradients

__all__ = [
    "Division",
    "Group",
    "OfWholeBatch",
    "Piece",
    "average",
    "check_alike",
    "current",
    "joined",
    "launched",
    "shared_accuracies",
    "shared_accuracy",
    "shared_parts",
    "shared_rows",
    "sum_gradients",
]
