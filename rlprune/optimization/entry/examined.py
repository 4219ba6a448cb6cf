"""What a check found, for whoever goes on with it."""

from __future__ import annotations

from dataclasses import dataclass

from rlprune.elastic.cnn import ElasticCNN
from rlprune.optimization.pace import Pace
from rlprune.optimization.plan import Plan, Size
from rlprune.optimization.result import CheckResult


@dataclass(frozen=True, eq=False)
class Examined:
    """What a check found.

    Attributes:
        elastic: the network, made elastic; it has the weights of the network as it was.
        residual: whether its residual streams can be pruned, too.
        size: of the task.
        plan: what is to be done.
        pace: of this machine.
        dense_ms: milliseconds of a batch through the whole network, by what it is to run on.
        asks_mirrored: whether the network is to be asked about mirrored images once it is trained.
        result: what is said of it.
    """

    elastic: ElasticCNN
    residual: bool
    size: Size
    plan: Plan
    pace: Pace
    dense_ms: float
    asks_mirrored: bool
    result: CheckResult
