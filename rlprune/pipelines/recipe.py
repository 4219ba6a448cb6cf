"""A recipe: everything that the way from a dataset to a bundle is to be done with, typed, in one TOML file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from rlprune.agents.joint.tuning import TuneSettings
from rlprune.agents.settings import PolicySettings
from rlprune.elastic.levels import MAX_PROFILES
from rlprune.errors import SettingsError
from rlprune.evaluation.timing.backends import LatencySettings
from rlprune.intake.options import DataOptions, ElasticOptions
from rlprune.training.adaptation import AdaptSettings, SpecialiseSettings
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import read_text
from rlprune.utils.settings import (
    Epochs,
    InnerShare,
    LearningRate,
    Must,
    NCandidates,
    Penalty,
    PositiveFloat,
    PositiveInt,
    Seed,
    as_tuple,
    ascending,
    read_settings,
    settings_dataclass,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


Budgets = Annotated[
    tuple[PositiveFloat, ...],
    as_tuple,
    Must(
        lambda budgets: 1 <= len(budgets) <= MAX_PROFILES and ascending(budgets),
        f"1 to {MAX_PROFILES} ascending shares above 0",
    ),
]


def _as_list(tables: Any) -> Any:
    """A list of tables, for which a single one may stand."""
    return [tables] if isinstance(tables, dict) else tables


@settings_dataclass
class TrainedNetwork:
    """A network that somebody trained."""

    model: str
    """A name such as resnet56, timm:resnet50 or torchvision:resnet50, or package.module:callable."""
    weights: str
    """Its weights: a file in $RLPRUNE_WEIGHTS, or beside the recipe; or the folder of an elastic network or a bundle,
    of which all is taken."""


@settings_dataclass
class SearchSettings:
    """How the codebook is found."""

    budgets: Budgets = (0.25, 0.5, 1.0)
    """Shares of the dense MACs; for each the best profile found that costs no more, ascending, at most 16."""
    n_candidates: NCandidates = 128
    """Static profiles to try."""
    n_images: PositiveInt = 2000
    """Images of the policy's split to judge them by."""
    mean_budgets: Annotated[tuple[InnerShare, ...], as_tuple] = ()
    """Shares of the dense MACs that an image may cost on average. If given, the profiles are as many as `budgets`, and
    chosen for what tuned cascades of them achieve at these costs, not each for itself."""
    codebook: str | None = None
    """A file beside the recipe that has the profiles already, as JSON; budgets count for nothing then."""

    def _conflicts(self) -> Iterator[str]:
        if self.codebook is not None and self.mean_budgets:
            yield (
                f"codebook={self.codebook!r}, mean_budgets={self.mean_budgets}: give only one; the file has profiles"
            )


@settings_dataclass
class StaticNetworkSettings:
    """Networks that are each pruned once, for all images, and trained for as many epochs as that of the policies."""

    budgets: Budgets
    """Shares of the dense MACs, ascending; for each the best profile within it that the search of the codebook tried.
    """
    epochs: Epochs | None = None
    """Of the last training of each; if not given, as many as the network of the policies has had since it was adapted:
    those of [specialise] and of the rounds of [tune] that stayed, and then those of a [refit] on all images."""
    learning_rate: LearningRate | None = None
    """Of that training; if not given, that of [specialise], or of the refit. So is everything else, teachers too."""

    def _conflicts(self) -> Iterator[str]:
        names = [f"{budget:g}" for budget in self.budgets]  # of their folders
        if len(set(names)) < len(names):
            yield f"budgets={self.budgets}: some are the same in six digits; give each once"


@settings_dataclass
class Recipe:
    """Settings of all steps; what a step's settings say of the seed gives way to the recipe's."""

    model: str
    """The network: a name such as resnet20, timm:efficientnet_b0 or torchvision:resnet18; or package.module:callable.
    """
    data: DataOptions
    """Where images come from, and how they are split."""
    weights: str | None = None
    """Its weights, a file in $RLPRUNE_WEIGHTS or beside the recipe. If not given it is trained: from scratch, or from
    the pretrained weights of a network of timm or torchvision, unless this is the word none."""
    teacher: TrainedNetwork | None = None
    """Whose predictions training follows; without one, those of the network as it was before it became elastic."""
    final_teachers: Annotated[list[TrainedNetwork], BeforeValidator(_as_list)] = field(default_factory=list)
    """Whose predictions are followed once the codebook is found, if not the teacher's; larger ones pay there. Of
    several the mean of the logits counts."""
    reference: TrainedNetwork | None = None
    """The dense network that the results stand beside; the recipe's own if not given."""
    dense: TrainingSettings = field(default_factory=TrainingSettings)
    """Of the network, if no file of weights is named."""
    elastic: ElasticOptions = field(default_factory=ElasticOptions)
    """How it is made elastic and ranked."""
    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    """To any profile."""
    search: SearchSettings = field(default_factory=SearchSettings)
    """Of the codebook."""
    specialise: SpecialiseSettings = field(default_factory=SpecialiseSettings)
    """To the profiles of the codebook alone."""
    policy: PolicySettings = field(default_factory=PolicySettings)
    """Of every policy; its penalty is the one that network and policy are tuned at."""
    latency: LatencySettings = field(default_factory=LatencySettings)
    """What time is measured for: with policy.cost = "latency" and elastic.round_to = "auto"."""
    tune: TuneSettings = field(default_factory=TuneSettings)
    """Of the network, jointly with that policy."""
    penalties: Annotated[tuple[Penalty, ...], as_tuple] = ()
    """Prices of compute at which further policies are learnt for the tuned network. Policies are learnt from the
    highest price down, each begun with the one before; in every round of tuning, too, down to the policy's own. In the
    end they are learnt from the lowest up as well, and the better of both stays."""
    refit: SpecialiseSettings | None = None
    """How the tuned network is trained on before it is evaluated, on all images that are not for testing, with codebook
    and policies as they are; it stays as it is if not given."""
    refit_weights: str | None = None
    """Weights, found as above, that the refit begins with in place of the tuned network's: public ones, say, that have
    seen every training image, and so could not train policies, which are learnt with a network that has not."""
    static: StaticNetworkSettings | None = None
    """Rivals of the policies: networks that are each dedicated to one cost. None if not given."""
    seed: Seed = 0
    """Fixes everything but times, on the same machine and as many threads."""

    def _conflicts(self) -> Iterator[str]:
        if self.latency != LatencySettings() and not self.measures_time:
            yield 'latency: no time is measured; leave it out, or give policy.cost="latency" or elastic.round_to="auto"'
        yield from self._penalty_conflicts()
        yield from self._share_conflicts()
        yield from self._refit_conflicts()

    def _penalty_conflicts(self) -> Iterator[str]:
        folders = [f"{penalty:g}" for penalty in (self.policy.penalty, *self.penalties)]  # as they are called
        if len(set(folders)) < len(folders):
            yield (
                f"penalties={self.penalties}: give each once, and none that equals policy.penalty, which is "
                f"{self.policy.penalty:g}"
            )
        if self.policy.penalty_range:
            yield (
                f"policy.penalty_range={self.policy.penalty_range}: a recipe learns a policy for each of its "
                "penalties; leave it out, or train a policy for a range with rlprune train"
            )

    def _share_conflicts(self) -> Iterator[str]:
        if self.search.codebook is not None:
            return  # only its file says how many profiles there are
        for name, training in (("specialise", self.specialise), ("refit", self.refit)):
            if training is not None and len(training.shares) > len(self.search.budgets):
                yield (
                    f"{name}.shares={training.shares}: give one for each profile that is found, of which there are "
                    f"{len(self.search.budgets)} at the most, as many as search.budgets, or none"
                )

    def _refit_conflicts(self) -> Iterator[str]:
        if self.refit is None:
            if self.refit_weights is not None:
                yield f"refit_weights={self.refit_weights!r}: nothing begins with them; add a [refit]"
            return
        separate = self.specialise.separate or self.refit.separate
        fixed_stem = separate and self.refit_weights is None
        if self.policy.pool and not fixed_stem:
            yield (
                f"policy.pool={self.policy.pool}: its policies read features of the stem, which a refit changes; "
                "leave the features out with pool = 0, or give profiles weights of their own (refit.separate) and no "
                "refit_weights"
            )

    @property
    def measures_time(self) -> bool:
        """Whether anything follows from measured times."""
        return self.policy.cost == "latency" or self.elastic.round_to == "auto"

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a recipe.

        Raises:
            SettingsError: the file cannot be read or is no TOML; or it says what a recipe cannot, with a line for every
                such thing.
        """
        try:
            return read_settings(cls, tomllib.loads(read_text(Path(path))))
        except OSError as error:
            raise SettingsError(f"{path} cannot be read ({error.strerror}); name the TOML file of a recipe") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path} is no TOML: {error}") from error
        except UnicodeDecodeError as error:
            raise SettingsError(f"{path} is no text: {error}; save it as UTF-8") from error
        except SettingsError as error:
            raise SettingsError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error

    def on(self, device: str) -> Recipe:
        """The same, whose networks train on a device, such as cuda.

        Raises:
            SettingsError: there is no such device here.
        """
        refit = None if self.refit is None else replace(self.refit, device=device)
        return replace(
            self,
            dense=replace(self.dense, device=device),
            adapt=replace(self.adapt, device=device),
            specialise=replace(self.specialise, device=device),
            tune=replace(self.tune, device=device),
            refit=refit,
        )

    def to_json(self) -> dict[str, Any]:
        """All settings, as JSON holds them."""
        return asdict(self)
