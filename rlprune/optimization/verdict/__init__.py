"""From trained networks to a verdict: what each answers and takes, the choice on validation images, and its words.

May import `rlprune.optimization`'s goal, plan, result and what was trained, and everything below it.
"""

from rlprune.optimization.verdict.choice import Choice, Option, choose
from rlprune.optimization.verdict.comparison import Chosen, Comparison
from rlprune.optimization.verdict.summary import Measured, summarise

__all__ = ["Choice", "Chosen", "Comparison", "Measured", "Option", "choose", "summarise"]
