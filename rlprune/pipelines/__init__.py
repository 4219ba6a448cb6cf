"""Several steps in one go: recipes, the comparison of all ways of deciding.

May import everything but the command line.
"""

from rlprune.pipelines.comparison import CompareSettings, Comparison
from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.steps import Steps

__all__ = ["CompareSettings", "Comparison", "Recipe", "Steps"]
