"""Carry out a recipe."""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import AfterValidator

from rlprune.cli.several import ProcessOptions
from rlprune.pipelines.recipe import Recipe
from rlprune.pipelines.step_settings import StepName, steps_begun
from rlprune.pipelines.steps import Steps
from rlprune.storage.provenance import check_ours
from rlprune.training.parallel.group import current
from rlprune.utils.hardware import check_device
from rlprune.utils.locks import hold
from rlprune.utils.settings import Seed, settings_dataclass


@settings_dataclass
class RunRecipe:
    """Carry out a recipe: dense network, elastic network, codebook, policy, joint tuning, figures, bundle.

    Steps that its folder already has are not done again, and an interrupted one is resumed.
    """

    recipe: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RECIPE")]
    """A TOML file, such as runs/reference/resnet20/recipe.toml; weights that it names are searched for in
    $RLPRUNE_WEIGHTS, then next to it."""
    out: Path | None = None
    """Folder for everything it makes; runs/NAME if not given, NAME being the folder of the recipe."""
    until: StepName = "evaluate"
    """Stop after this step."""
    seed: Seed | None = None
    """Another seed than the recipe's."""
    device: Annotated[str, AfterValidator(check_device)] | None = None
    """Where networks are trained and searched, such as cuda; the recipe's own devices if not given. A run may go on on
    another one."""
    several: tyro.conf.OmitArgPrefixes[ProcessOptions] = field(default_factory=ProcessOptions)

    @property
    def folder(self) -> Path:
        """The folder that it fills."""
        return Path("runs") / self.recipe.resolve().parent.name if self.out is None else self.out

    def run(self) -> None:
        """Do it."""
        recipe = Recipe.read(self.recipe)
        recipe = recipe if self.seed is None else replace(recipe, seed=self.seed)
        recipe = recipe if self.device is None else recipe.on(self.device)
        out = self.folder
        if out.resolve() != self.recipe.resolve().parent:
            current().from_first(lambda: check_ours(out, steps_begun(out)))
        with current().first(hold(out, inside=True)):
            Steps(recipe, out, self.recipe.parent).run(self.until)
        print(f"done; everything is in {out}, watch it with: tensorboard --logdir {out}")
