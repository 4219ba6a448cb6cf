"""What the steps of a recipe share: its folder and images, and where things are kept."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from rlprune.data.image_set import ImageSet, Splits
from rlprune.elastic.cnn import ElasticCNN
from rlprune.intake.notes import split_notes, split_rule_of
from rlprune.intake.options import source_notes
from rlprune.pipelines.recipe import Recipe
from rlprune.profiles.codebook import read_codebook
from rlprune.profiles.latency import Latency
from rlprune.profiles.search import Search, search_profiles
from rlprune.storage.networks import load_network, save_network
from rlprune.training.parallel.group import current
from rlprune.training.parallel.measuring import shared_accuracies
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import write_json
from rlprune.utils.tensorboard import scalar_log

_Settings = TypeVar("_Settings", bound=TrainingSettings)


class RecipeRun(ABC):
    """A recipe in the folder of a run.

    Args:
        recipe: what to do.
        out: folder of everything that is made, checkpoints and TensorBoard's events included.
        recipe_dir: folder in which the files are that the recipe names.
    """

    def __init__(self, recipe: Recipe, out: str | Path, recipe_dir: str | Path) -> None:
        self.recipe = recipe
        self.out = Path(out)
        self.recipe_dir = Path(recipe_dir)

    @property
    @abstractmethod
    def splits(self) -> Splits:
        """The images."""

    @property
    def made_of(self) -> dict[str, Any]:
        """Notes on model and data, for what is stored."""
        return {"model": self.recipe.model, "source": source_notes(self.recipe.data)}

    @property
    def split_noted(self) -> dict[str, Any]:
        """Notes on how images are split, likewise."""
        return {"split": split_notes(self.splits, split_rule_of(self.out))}

    @property
    def codebook(self) -> Tensor:
        """The profiles found, int64 (K, G), cheapest first."""
        return read_codebook(self.out / "codebook.json")

    @property
    def selection_set(self) -> ImageSet:
        """The images that static profiles are judged by."""
        return self.splits.policy.subset(slice(0, self.recipe.search.n_images))

    def seeded(self, settings: _Settings) -> _Settings:
        """A step's settings, with the recipe's seed."""
        return replace(settings, seed=self.recipe.seed)

    def elastic(self, dense: nn.Module) -> ElasticCNN:
        """An ordinary network made elastic, its channels ranked."""
        shape = tuple(self.splits.network.images.shape[1:])
        return self.recipe.elastic.build(dense, shape, self.splits.network, self._round_to)

    def _round_to(self, elastic: ElasticCNN) -> int:
        """What widths round up to, where that is measured, for a network that rounds none; later what "adapted" has."""
        if (self.out / "adapted").exists():
            return self.load("adapted").round_to
        return self.recipe.latency.round_to(elastic, self.out / "round_to.json")

    def searched(self, elastic: ElasticCNN) -> Search:
        """The static profiles that a search tried; kept in `search.json` where the recipe needs them again.

        Several processes share the images.
        """
        path, settings, images = self.out / "search.json", self.recipe.search, self.selection_set
        known = current().from_first(lambda: path.read_text() if path.exists() else None)
        if known is not None:
            return Search.from_json(json.loads(known))
        latency = current().from_first(lambda: self.latency(elastic))
        how: dict[str, Any] = {"latency": latency, "measure": partial(shared_accuracies, elastic, images)}
        found = search_profiles(elastic, images, settings.n_candidates, self.recipe.seed, **how)
        if self.recipe.static is not None and current().leads:
            write_json(path, found.to_json())
        return found

    def latency(self, elastic: ElasticCNN) -> Latency | None:
        """What is paid for, if that is time; measured once."""
        paid = self.recipe.policy.cost == "latency"
        return self.recipe.latency.table(self.out / "latency.json", elastic, self.recipe.seed) if paid else None

    def checkpointing(self, step: str) -> dict[str, Any]:
        """Where a training's checkpoint and events go."""
        return {"checkpoint": self.out / f"{step}.checkpoint.pt", "log": scalar_log(self.out / "logs", step)}

    def save(self, name: str, elastic: ElasticCNN) -> None:
        """Keep a network; of several processes the first does."""
        if current().leads:
            save_network(self.out / name, elastic.cpu(), self.splits.network, self.made_of | self.split_noted)

    def load(self, name: str) -> ElasticCNN:
        """Read one that was kept, to where the recipe trains it on."""
        return load_network(self.out / name).network.to(self.recipe.specialise.device)
