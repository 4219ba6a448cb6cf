"""One command from a trained network and images to an honest verdict: `rlprune.optimize`.

Check, plan, train, compare with rivals that were trained as long, choose on validation images, measure once on test
images, say what to deploy, and leave it ready. It may import everything but the command line, which alone imports it.
"""

from rlprune.optimization.goal import Goal, PlanOptions
from rlprune.optimization.job import Optimization, optimize
from rlprune.optimization.plan import Plan
from rlprune.optimization.result import (
    Bounds,
    CheckResult,
    ClassCost,
    GoalResult,
    OptimizeResult,
    Point,
    Row,
    load_result,
)

__all__ = [
    "Bounds",
    "CheckResult",
    "ClassCost",
    "Goal",
    "GoalResult",
    "Optimization",
    "OptimizeResult",
    "Plan",
    "PlanOptions",
    "Point",
    "Row",
    "load_result",
    "optimize",
]
