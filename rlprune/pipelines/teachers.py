"""Whom the trainings of a recipe learn from."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from rlprune.data.image_set import ImageSet, Splits
from rlprune.models.weights import find_weights
from rlprune.pipelines.inputs import build_model
from rlprune.pipelines.recipe import Recipe, TrainedNetwork
from rlprune.training.distillation import Ensemble, Teacher, cache_teacher_logits
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import atomic_write


class Teachers:
    """The networks that a recipe names, and what they said of kept views, in a folder.

    Args:
        recipe: names them.
        out: folder of `teacher.safetensors`, `teacher-refit.safetensors`, and of `dense.safetensors`, the network that
            teaches where none is named.
        beside: folder in which files that the recipe names are.
        splits: the images.
    """

    def __init__(self, recipe: Recipe, out: Path, beside: Path, splits: Splits) -> None:
        self.recipe, self.out, self.beside, self.splits = recipe, out, beside, splits
        self.remembered, self.remembered_for_refit = (out / f"teacher{part}.safetensors" for part in ("", "-refit"))

    @property
    def names_first(self) -> list[TrainedNetwork]:
        """None, or the one until the codebook is found."""
        return [] if self.recipe.teacher is None else [self.recipe.teacher]

    @property
    def names_final(self) -> list[TrainedNetwork]:
        """Those from then on."""
        return self.recipe.final_teachers or self.names_first

    def first(self, settings: TrainingSettings) -> Teacher:
        """Whom trainings follow until the codebook is found."""
        return self._of(self.names_first, settings)

    def final(self, settings: TrainingSettings) -> Teacher:
        """Whom they follow from then on."""
        return self._of(self.names_final, settings)

    def of_refit(self) -> Teacher:
        """Whom the training on all images follows."""
        path = self.remembered_for_refit
        return load_file(path)["logits"] if path.exists() else self._asked(self.names_final)

    def cache_logits(self) -> None:
        """Ask the final teachers once about all views, if the recipe keeps views; and about those of a refit."""
        recipe, path, of_all = self.recipe, self.remembered, self.remembered_for_refit
        if not self.names_final:
            return
        if recipe.specialise.views and not path.exists():
            self._remember(path, self.splits.network, recipe.specialise, None)
        if recipe.refit is not None and recipe.refit.views and not of_all.exists():
            same = views_of(recipe.refit) == views_of(recipe.specialise)
            known = path if same else None  # of the network's images, which come first
            self._remember(of_all, self.splits.training, recipe.refit, known)

    def dense(self) -> nn.Module:
        """The recipe's own ordinary network."""
        return build_model(self.recipe.model, self.out / "dense.safetensors", self.splits).eval()

    def load(self, network: TrainedNetwork) -> nn.Module:
        """A network that somebody trained.

        Raises:
            ModelError: its weights are not there, or are of another network or for other images.
        """
        return build_model(network.model, find_weights(network.weights, self.beside), self.splits).eval()

    def _of(self, names: list[TrainedNetwork], settings: TrainingSettings) -> Teacher:
        """What was remembered, if a training sees the very views asked about, or a network."""
        same = settings.views and views_of(settings) == views_of(self.recipe.specialise)
        if same and names == self.names_final and self.remembered.exists():
            return load_file(self.remembered)["logits"]
        return self._asked(names)

    def _asked(self, names: list[TrainedNetwork]) -> nn.Module:
        """A teacher that is asked about every batch."""
        if not names:
            return self.dense()
        networks = [self.load(name) for name in names]
        return networks[0] if len(networks) == 1 else Ensemble(networks)

    def _remember(self, path: Path, images: ImageSet, settings: TrainingSettings, known: Path | None) -> None:
        """Keep what the final teachers say of the views of images; what they said of the first may be known."""
        answers = None if known is None else load_file(known)["logits"]
        logits = cache_teacher_logits(self._asked(self.names_final), images, settings, known=answers)
        with atomic_write(path) as temporary:
            save_file({"logits": logits}, temporary)


def views_of(settings: TrainingSettings) -> list[int]:
    """What the remembered views of an image depend on, and in which way they are drawn, so far the second."""
    return [settings.views, settings.padding, int(settings.flip), 2]
