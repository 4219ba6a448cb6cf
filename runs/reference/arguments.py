"""What scripts take on the command line: a recipe and the folder of its run, or a bundle and its test images."""

import argparse
from pathlib import Path

import rlprune
from rlprune.data.image_set import ImageSet
from rlprune.data.loading import load
from rlprune.deployment.dynamic_cnn import DynamicCNN
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


def bundle_of(what: str | None, out: str | None = None) -> tuple[Path, DynamicCNN, ImageSet, Path]:
    """The bundle in the folder that is named, and its test images.

    Args:
        what: explains the script.
        out: what the folder given by `--out` is for; None if the script has none.

    Returns:
        The folder, its network, the images as the network expects them, and the folder given by `--out`.
    """
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path, help="folder with a bundle")
    parser.add_argument("data", help="as `rlprune evaluate --data`")
    if out is not None:
        parser.add_argument("--out", type=Path, required=True, help=out)
    named = parser.parse_args()
    dynamic = rlprune.load(named.reference / "bundle")
    test = load(named.data, preprocess=dynamic.preprocessing).test.prepared_for(dynamic)
    return named.reference, dynamic, test, getattr(named, "out", named.reference)


def _parser(what: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--device", help="where networks are trained, such as cuda; as the recipe says if not given")
    return parser


def _steps(named: argparse.Namespace) -> Steps:
    recipe = Recipe.read(named.recipe)
    return Steps(recipe if named.device is None else recipe.on(named.device), named.run, named.recipe.parent)
