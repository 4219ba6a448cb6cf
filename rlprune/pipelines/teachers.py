"""The networks that a recipe names: teachers that its trainings learn from, its own one, and what it is measured by."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save
from torch import nn

from rlprune.data.image_set import ImageSet, Splits
from rlprune.elastic.module import ElasticModule
from rlprune.models import registry
from rlprune.models.weights import find_weights
from rlprune.pipelines.inputs import build_model, load_profiles
from rlprune.pipelines.recipe import Recipe, TrainedNetwork
from rlprune.pipelines.step_settings import check_weights, views_of
from rlprune.profiles.search import check_budget, check_candidates
from rlprune.training.distillation import Ensemble, Teacher, cache_teacher_logits
from rlprune.training.logit_shards import LogitShards
from rlprune.training.parallel.group import current
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import atomic_write, check_room

_N_RANKED = 32
"""Images by which channels are ranked for a try."""
_N_COPIES = 12
"""How often a run writes its network at the most: what its steps leave, and a training's checkpoints."""

_N_STATIC_COPIES = 5
"""The same for each static network: it and the checkpoints of two trainings, with momentum."""


def check_networks(recipe: Recipe, recipe_dir: Path) -> None:
    """Make sure that a recipe's networks and weights are there: better missed now than in hours.

    Args:
        recipe: names them.
        recipe_dir: folder in which the files are that it names.

    Raises:
        ModelError: one is not.
        MissingExtraError: a library is not installed: one that brings a network, or one that is to be timed.
    """
    recipe.latency.check()
    check_weights(recipe, recipe_dir)
    registry.check(recipe.model, pretrained=recipe.weights is None)
    for network in (recipe.teacher, recipe.reference, *recipe.final_teachers):
        if network is not None:
            registry.check(network.model)


class Teachers:
    """The networks that a recipe names, and their cached logits, in a folder.

    Args:
        recipe: names them.
        out: folder of `teacher.safetensors` and `teacher-refit.safetensors`, the cached logits, and of
            `dense.safetensors`, the network that teaches where the recipe names none.
        recipe_dir: folder in which the files are that the recipe names.
        splits: the images.
    """

    def __init__(self, recipe: Recipe, out: Path, recipe_dir: Path, splits: Splits) -> None:
        self.recipe = recipe
        self.out = out
        self.recipe_dir = recipe_dir
        self.splits = splits
        self.cached = out / "teacher.safetensors"
        self.cached_for_refit = out / "teacher-refit.safetensors"

    @property
    def names_first(self) -> list[TrainedNetwork]:
        """The teacher until the codebook is found, if the recipe names one."""
        return [] if self.recipe.teacher is None else [self.recipe.teacher]

    @property
    def names_final(self) -> list[TrainedNetwork]:
        """The teachers from then on."""
        return self.recipe.final_teachers or self.names_first

    def first(self, settings: TrainingSettings) -> Teacher:
        """Whom trainings learn from until the codebook is found."""
        return self._of(self.names_first, settings)

    def final(self, settings: TrainingSettings) -> Teacher:
        """Whom they learn from then on."""
        return self._of(self.names_final, settings)

    def for_refit(self) -> Teacher:
        """Whom the training on all images learns from."""
        refit = self.recipe.refit
        known = None if refit is None else self._cached(self.cached_for_refit, self.splits.training, refit)
        return self._network(self.names_final) if known is None else known

    def cache_logits(self) -> None:
        """Run the final teachers once on all views, if the recipe keeps views; and on those of a refit."""
        if not self.names_final:
            return
        specialise = self.recipe.specialise
        if specialise.views and not self.cached.exists():
            self._cache(self.cached, self.splits.network, specialise, known=None)
        refit = self.recipe.refit
        if refit is not None and refit.views and not self.cached_for_refit.exists():
            same_views = views_of(refit) == views_of(specialise)
            known = (
                self.cached if same_views and self.cached.exists() else None
            )  # for the network's images, which come first
            self._cache(self.cached_for_refit, self.splits.training, refit, known)

    def own(self) -> tuple[nn.Module, bool]:
        """What the recipe's own network begins as, and whether that is trained already."""
        named = self.recipe.weights
        if named is None or named == "none":
            weights = None if named is None else Path(named)
            return build_model(self.recipe.model, weights, self.splits, new_head=True), False
        return build_model(self.recipe.model, find_weights(named, self.recipe_dir), self.splits), True

    def dense(self) -> nn.Module:
        """The recipe's own ordinary network."""
        return build_model(self.recipe.model, self.out / "dense.safetensors", self.splits).eval()

    def reference(self) -> nn.Module:
        """The dense network that results are compared with: the one that the recipe names, or else its own."""
        named = self.recipe.reference
        return self.dense() if named is None else self.load(named)

    def check_all(self) -> None:
        """Make sure, before anything long begins, that all networks fit, and what is made of them can be stored.

        Raises:
            ModelError: one does not fit its weights or the images; or the recipe's own can be made elastic in no way,
                or not be stored.
            RLPruneError: the codebook that the recipe names is none of its network, or a search can find none.
            WriteError: there is no room for what is made.
        """
        recipe = self.recipe
        for named in (*self.names_first, *recipe.final_teachers, recipe.reference):
            if named is not None:
                self.load(named)
        if recipe.refit_weights is not None:
            build_model(recipe.model, find_weights(recipe.refit_weights, self.recipe_dir), self.splits)
        images = self.splits.network.subset(slice(0, _N_RANKED))
        elastic = recipe.elastic.build(self.own()[0], tuple(images.images.shape[1:]), images, lambda _: 1)
        if recipe.search.codebook is not None:
            load_profiles(elastic, self.recipe_dir / recipe.search.codebook)
        n_copies = _N_COPIES * (len(recipe.search.budgets) if recipe.specialise.separate else 1)
        n_copies += _N_STATIC_COPIES * (len(recipe.static.budgets) if recipe.static else 0)
        check_room(self.out, n_copies * sum(value.nbytes for value in elastic.state_dict().values()))
        if recipe.static is not None:
            check_candidates(elastic, recipe.search.n_candidates)
            check_budget(elastic, min(recipe.static.budgets))
        if recipe.search.codebook is None and not (self.out / "codebook.json").exists():
            self._check_search(elastic)

    def _check_search(self, elastic: ElasticModule) -> None:
        """Make sure that the search for a codebook can find one."""
        search = self.recipe.search
        check_candidates(elastic, search.n_candidates)
        if self.recipe.policy.cost != "latency":
            check_budget(elastic, min((*search.budgets, *search.mean_budgets)))

    def load(self, network: TrainedNetwork) -> nn.Module:
        """A network that somebody trained.

        Raises:
            ModelError: its weights are not there, or are of another network or for other images.
        """
        return build_model(network.model, find_weights(network.weights, self.recipe_dir), self.splits).eval()

    def _of(self, names: list[TrainedNetwork], settings: TrainingSettings) -> Teacher:
        """Cached logits, if a training sees the very views that they are for; else a network."""
        same_views = settings.views and views_of(settings) == views_of(self.recipe.specialise)
        known = None
        if same_views and names == self.names_final:
            known = self._cached(self.cached, self.splits.network, settings)
        return self._network(names) if known is None else known

    def _cached(self, path: Path, images: ImageSet, settings: TrainingSettings) -> Teacher | None:
        """The final teachers' logits on images, if there are any: in a file, or in a folder for streamed images."""
        folder = path.with_suffix("")
        if images.streamed and folder.is_dir():
            return LogitShards(folder, (len(images), settings.views, len(images.classes)))
        return load_file(path)["logits"] if path.exists() else None

    def _network(self, names: list[TrainedNetwork]) -> nn.Module:
        """A teacher that is run on every batch."""
        if not names:
            return self.dense()
        networks = [self.load(name) for name in names]
        return networks[0] if len(networks) == 1 else Ensemble(networks)

    def _cache(self, path: Path, images: ImageSet, settings: TrainingSettings, known: Path | None) -> None:
        """Keep the final teachers' logits on the views of images; those of the first images may be in a file."""
        if images.streamed:
            cache_teacher_logits(self._network(self.names_final), images, settings, folder=path.with_suffix(""))
            return
        known_logits = None if known is None else load_file(known)["logits"]
        logits = cache_teacher_logits(self._network(self.names_final), images, settings, known=known_logits)
        if not current().leads:
            return
        with atomic_write(path) as temporary:
            temporary.write_bytes(save({"logits": logits}))  # `save_file` would make a temporary file of its own
