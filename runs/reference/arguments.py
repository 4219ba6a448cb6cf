"""What the scripts that compare take on the command line: a recipe, and the folder of its run."""

import argparse
from pathlib import Path

from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.steps import Steps


def steps_of(what: str | None) -> Steps:
    """The steps of the recipe that is named; `what` explains the script."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("run", type=Path)
    named = parser.parse_args()
    return Steps(Recipe.read(named.recipe), named.run, named.recipe.parent)
