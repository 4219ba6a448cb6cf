"""A recipe: everything that the way from a dataset to a bundle is to be done with, typed, in one TOML file."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dacite

from rlprune.agents.joint_tuning import TuneSettings
from rlprune.agents.settings import PolicySettings
from rlprune.errors import RLPruneError
from rlprune.pipelines.options import DataOptions, ElasticOptions
from rlprune.training.adaptation import AdaptSettings, SpecialiseSettings
from rlprune.training.settings import TrainingSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that somebody trained."""

    model: str
    """A name such as resnet56, or package.module:callable."""
    weights: str
    """Its weights: a file in $RLPRUNE_WEIGHTS, or beside the recipe; or the folder of an elastic network or a bundle,
    of which all is taken."""


@dataclass(frozen=True)
class SearchSettings:
    """How the codebook is found."""

    budgets: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Shares of the dense multiply-adds; for each the best profile found that costs no more, ascending, at most 16."""
    n_candidates: int = 128
    """Static profiles to try."""
    n_images: int = 2000
    """Images of the policy's split to judge them by."""
    codebook: str | None = None
    """A file beside the recipe that has the profiles already, as JSON; budgets count for nothing then."""

    def __post_init__(self) -> None:
        ascending = all(low < high for low, high in zip(self.budgets, self.budgets[1:], strict=False))
        if not self.budgets or len(self.budgets) > 16 or not ascending or not 0 < self.budgets[0] or self.n_images < 1:
            raise RLPruneError(
                f"budgets={self.budgets}, n_images={self.n_images}: allowed are 1 to 16 ascending shares above 0, "
                "and 1 or more"
            )


@dataclass(frozen=True)
class Recipe:
    """Settings of all steps; what a step's settings say of the seed gives way to the recipe's."""

    model: str
    """The network: a name such as resnet20, or package.module:callable."""
    data: DataOptions
    """Where images come from, and how they are split."""
    weights: str | None = None
    """Its weights, a file in $RLPRUNE_WEIGHTS or beside the recipe; trained from scratch if not given."""
    teacher: TrainedNetwork | None = None
    """Whose predictions training follows; without one, those of the network as it was before it became elastic."""
    final_teachers: list[TrainedNetwork] = field(default_factory=list)
    """Whose predictions are followed once the codebook is found, if not the teacher's; larger ones pay there. Of
    several the mean of the logits counts."""
    reference: TrainedNetwork | None = None
    """The dense network that the results stand beside; the recipe's own if not given."""
    dense: TrainingSettings = field(default_factory=TrainingSettings)
    """Of the network, if it has no weights."""
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
    tune: TuneSettings = field(default_factory=TuneSettings)
    """Of the network, jointly with that policy."""
    penalties: tuple[float, ...] = ()
    """Prices of compute at which further policies are learnt for the tuned network. Policies are learnt from the
    highest price down, each begun with the one before; in every round of tuning, too, down to the policy's own. In the
    end they are learnt from the lowest up as well, and the better of both stays."""
    refit: SpecialiseSettings | None = None
    """How the tuned network is trained on before it is evaluated, on all images that are not for testing, with codebook
    and policies as they are; it stays as it is if not given."""
    refit_weights: str | None = None
    """Weights, found as above, that the refit begins with in place of the tuned network's: public ones, say, that have
    seen every training image, and so could not train policies, which are learnt with a network that has not."""
    seed: int = 0
    """Fixes everything but times."""

    def __post_init__(self) -> None:
        names = [f"{penalty:g}" for penalty in (self.policy.penalty, *self.penalties)]  # as folders are called
        if not all(penalty >= 0 for penalty in self.penalties) or len(set(names)) < len(names):
            raise RLPruneError(
                f"penalties={self.penalties}: allowed are numbers of 0 or more, each once, and other than the policy's "
                f"own, which is {self.policy.penalty:g}"
            )
        if self.policy.penalty_range:
            raise RLPruneError(
                f"policy.penalty_range={self.policy.penalty_range}: a recipe learns a policy for each of its "
                "penalties; train one for a range with rlprune train"
            )
        searched = self.search.codebook is None
        for name, training in (("specialise", self.specialise), ("refit", self.refit)):
            if training is not None and searched and len(training.shares) > len(self.search.budgets):
                raise RLPruneError(
                    f"{name}.shares={training.shares}: give one for each profile that is found, of which there are "
                    f"{len(self.search.budgets)} at the most, as many as search.budgets, or none"
                )
        if self.refit_weights is not None and self.refit is None:
            raise RLPruneError(f"refit_weights={self.refit_weights!r}: nothing begins with them; add a [refit]")
        separate = self.specialise.separate or (self.refit is not None and self.refit.separate)
        fixed_stem = separate and self.refit_weights is None
        if self.refit is not None and self.policy.pool and not fixed_stem:
            raise RLPruneError(
                f"policy.pool={self.policy.pool}: its policies read features of the stem, which a refit changes; "
                "leave the features out with pool = 0, or give profiles weights of their own (refit.separate) and no "
                "refit_weights"
            )

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe.

        Raises:
            RLPruneError: the file is no TOML, or says something that a recipe cannot.
        """
        config = dacite.Config(strict=True, type_hooks=_HOOKS)
        try:
            return dacite.from_dict(cls, tomllib.loads(path.read_text("utf-8")), config)
        except tomllib.TOMLDecodeError as error:
            raise RLPruneError(f"{path} is no TOML: {error}") from error
        except (dacite.DaciteError, RLPruneError, ValueError) as error:
            raise RLPruneError(f"{path}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """All settings, as JSON holds them."""
        return asdict(self)


def _number(value: Any) -> float:
    """A float, for which an int may stand."""
    if type(value) not in (int, float):
        raise dacite.WrongTypeError(float, value)
    return float(value)


def _whole(value: Any) -> int:
    """An int; true and false are none, whatever Python says."""
    if type(value) is not int:
        raise dacite.WrongTypeError(int, value)
    return int(value)


def _list(value: Any) -> tuple[Any, ...]:
    """A list, which settings hold as a tuple."""
    if type(value) is not list:
        raise dacite.WrongTypeError(list, value)
    return tuple(value)


def _tables(value: Any) -> Any:
    """A list of tables, for which a single one may stand."""
    return [value] if isinstance(value, dict) else value


_LISTS: tuple[Any, ...] = (tuple[float, ...], tuple[int, ...], tuple[float, float, float])
_HOOKS: dict[Any, Any] = {float: _number, int: _whole, list[TrainedNetwork]: _tables, **dict.fromkeys(_LISTS, _list)}
