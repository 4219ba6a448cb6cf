"""Rivals of a recipe's policies: networks that are each pruned once, for all images, and trained as long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from rlprune.baselines.stored import load_plain, save_sliced
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.evaluation.controls import Point
from rlprune.evaluation.static import static_points
from rlprune.models.weights import find_weights
from rlprune.pipelines.inputs import build_model
from rlprune.pipelines.recipe import StaticNetworkSettings
from rlprune.pipelines.recipe_run import RecipeRun
from rlprune.profiles.cost import Cost
from rlprune.profiles.search import best_within
from rlprune.training.distillation import Teacher
from rlprune.training.parallel.group import current
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings


@dataclass(frozen=True, eq=False)
class _Training:
    """One training of a network.

    Attributes:
        name: what its checkpoint is called.
        settings: how.
        images: what on.
        teacher: whom it learns from.
    """

    name: str
    settings: TrainingSettings
    images: ImageSet
    teacher: Teacher


class LaterTeachers(Protocol):
    """Whom trainings learn from once the codebook is found."""

    def final(self, settings: TrainingSettings) -> Teacher:
        """Whom those under some settings learn from."""

    def for_refit(self) -> Teacher:
        """Whom the one on all images learns from."""


class StaticNetworks:
    """Networks in the folder `static` of a run, one for each budget.

    Each begins as a slice of what the network of the policies began as, under the most accurate profile within its
    budget that the search for the codebook tried. It is trained with the same teachers, settings and images, for
    as many epochs: those of `adapt` are in what it is cut from; those of `specialise` and of the rounds of tuning that
    stayed come next; and those of a refit, on all images that are not for testing, are the last. Where a refit begins
    with other weights, it is the only training since, here as there.

    Args:
        run: the run, whose codebook is found.
        settings: of the networks.
        teachers: of the run.
    """

    def __init__(self, run: RecipeRun, settings: StaticNetworkSettings, teachers: LaterTeachers) -> None:
        self._run = run
        self._settings = settings
        self._teachers = teachers

    def train(self) -> None:
        """Make those networks that are not there yet."""
        missing = [budget for budget in self._settings.budgets if not self._folder(budget).exists()]
        if not missing:
            return
        profiles = self._profiles()
        trainings = list(self._trainings())
        for budget in missing:
            profile = profiles[self._settings.budgets.index(budget)]
            elastic = self._beginning()
            network = elastic.slice(profile)
            for training in trainings:
                self._train(network, training, budget)
            if not current().leads:
                continue
            notes = self._run.made_of | self._run.split_noted | {"budget": budget}
            save_sliced(self._folder(budget), network, elastic, profile, self._run.splits.network, notes)

    def points(self, test: ImageSet) -> tuple[Point, ...]:
        """Cost and accuracy of the networks on the test images."""
        dense_macs = int(Cost(self._run.load("adapted")).dense.macs)
        networks = (load_plain(self._folder(budget)).network.eval() for budget in self._settings.budgets)
        return static_points(networks, test, dense_macs)

    def _folder(self, budget: float) -> Path:
        return self._run.out / "static" / f"{budget:g}"

    def _profiles(self) -> Tensor:
        """The best profile tried within each budget, int64 (budgets, G); in MACs, whatever the policies pay in."""
        adapted = self._run.load("adapted")
        by_macs = self._run.searched(adapted).by_macs(adapted)
        return torch.cat([best_within(adapted, by_macs, [budget]) for budget in self._settings.budgets])

    def _beginning(self) -> ElasticCNN:
        """What the network of the policies began as, before it was trained for the codebook."""
        run = self._run
        if run.recipe.refit is None or run.recipe.refit_weights is None:
            return run.load("adapted")
        weights = find_weights(run.recipe.refit_weights, run.recipe_dir)
        return run.elastic(build_model(run.recipe.model, weights, run.splits))

    def _trainings(self) -> Iterator[_Training]:
        """What each network goes through, in order."""
        run = self._run
        recipe, splits = run.recipe, run.splits
        if recipe.refit is None or recipe.refit_weights is None:
            epochs = recipe.specialise.epochs + self._tuned_epochs()
            settings = self._as(recipe.specialise, epochs, is_last=recipe.refit is None)
            yield _Training("specialise", settings, splits.network, self._teachers.final(settings))
        if recipe.refit is not None:
            settings = self._as(recipe.refit, recipe.refit.epochs, is_last=True)
            yield _Training("refit", settings, splits.training, self._teachers.for_refit())

    def _as(self, settings: TrainingSettings, epochs: int, *, is_last: bool) -> TrainingSettings:
        """Another training's settings, for an ordinary network; what is asked for counts for the last one."""
        own = TrainingSettings(**{field.name: getattr(settings, field.name) for field in fields(TrainingSettings)})
        asked = self._settings
        learning_rate = asked.learning_rate if is_last and asked.learning_rate is not None else own.learning_rate
        epochs = asked.epochs if is_last and asked.epochs is not None else epochs
        return self._run.seeded(replace(own, epochs=epochs, learning_rate=learning_rate))

    def _tuned_epochs(self) -> int:
        """Epochs of the rounds of tuning that stayed."""
        rewards = json.loads((self._run.out / "tuning" / "rewards.json").read_text())
        was_undone = len(rewards) > 1 and rewards[-1] < rewards[-2]
        return self._run.recipe.tune.epochs * (len(rewards) - 1 - was_undone)

    def _train(self, network: nn.Module, training: _Training, budget: float) -> None:
        checkpointing = self._run.checkpointing(f"static/{budget:g}-{training.name}")
        pretrain(network, training.images, training.settings, teacher=training.teacher, **checkpointing)
