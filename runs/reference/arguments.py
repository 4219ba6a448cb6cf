"""What the scripts that compare take on the command line: a recipe, and the folder of its run."""

import argparse
from pathlib import Path

from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.steps import Steps


def steps_of(what: str | None) -> Steps:
    """The steps of the recipe that is named; `what` explains the script."""
    named = _parser(what).parse_args()
    return _steps(named)


def steps_and_more_of(what: str | None) -> tuple[Steps, list[str]]:
    """The same, and what is named after them."""
    parser = _parser(what)
    parser.add_argument("more", nargs="*")
    named = parser.parse_args()
    return _steps(named), named.more


def _parser(what: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("run", type=Path)
    return parser


def _steps(named: argparse.Namespace) -> Steps:
    return Steps(Recipe.read(named.recipe), named.run, named.recipe.parent)
