"""All known ways of deciding what an image runs through, from one network, side by side."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.baselines.gate_training import GateSettings, train_gates
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.baselines.rivals import RivalInputs, points_of, rehearse
from rlprune.baselines.stored import load_gated, save_gated
from rlprune.data.image_set import Splits
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.levels import MAX_PROFILES
from rlprune.envs.logit_cache import LatestLogitCache
from rlprune.errors import ModelError, RLPruneError
from rlprune.evaluation.results import Conditions
from rlprune.evaluation.timing_results import ComparisonResult
from rlprune.pipelines.candidates import LEARNT, METHODS, Candidate, Candidates, at_equal_macs, find_rivals
from rlprune.pipelines.penalty_chain import PenaltyChain
from rlprune.pipelines.step_settings import as_noted
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import read_codebook
from rlprune.profiles.search import choose_codebook, search_profiles
from rlprune.storage.networks import load_network, save_network
from rlprune.storage.provenance import check_ours, fingerprint, noted, plain, read_note
from rlprune.training.adaptation import SpecialiseSettings, adapt
from rlprune.training.distillation import Teacher
from rlprune.training.loop import check_checkpoint_room
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import write_json
from rlprune.utils.imports import names_callable
from rlprune.utils.locks import hold
from rlprune.utils.settings import (
    AtMost,
    InnerShare,
    Must,
    NCandidates,
    NonNegativeFloat,
    Penalty,
    PositiveInt,
    Seconds,
    as_tuple,
    settings_dataclass,
)
from rlprune.utils.tensorboard import scalar_log

_WAYS = f"{', '.join(METHODS)}, or package.module:callable for a rival of your own"
_Method = Annotated[str, Must(lambda name: name in METHODS or names_callable(name), f"one of {_WAYS}")]
_SomeMethods = Annotated[tuple[_Method, ...], as_tuple, Must(len, f"one or more of {_WAYS}")]
_NOTES = "settings.json"
_SHARED = {field.name for field in fields(TrainingSettings)}


@settings_dataclass
class CompareSettings:
    """What is compared, and at which points."""

    methods: _SomeMethods = METHODS
    """Ways of deciding: some of these, or rivals of your own, each as package.module:callable."""
    penalties: Annotated[tuple[Penalty, ...], as_tuple] = (0.3, 0.1, 0.03)
    """Prices of compute at which policies are learnt, from the highest down and from the lowest up, each begun with the
    one before; of the two the one counts that earns more on the images that it learnt from."""
    densities: Annotated[tuple[InnerShare, ...], as_tuple] = (0.3, 0.5, 0.7)
    """Shares that gates, of channels and of branches, are trained towards."""
    sparsities: Annotated[tuple[Annotated[NonNegativeFloat, AtMost(1000)], ...], as_tuple] = (0.003, 0.01, 0.03)
    """Weights of the L1 norm that gates are trained under instead."""
    n_profiles: Annotated[int, Field(ge=1, le=MAX_PROFILES)] = 4
    """Of the codebook that policies, thresholds and static networks share."""
    n_candidates: NCandidates = 64
    """Static profiles tried in the search for it."""
    n_points: Annotated[PositiveInt, AtMost(1000)] = 6
    """Budgets at which a threshold is chosen."""
    seconds: Seconds = 20.0
    """Time to spend on timing, for each batch size."""


def check_comparison(out: Path) -> None:
    """Make sure that a folder may be filled with a comparison.

    Raises:
        RLPruneError: it holds something else.
    """
    check_ours(out, "made_of" in read_note(out / _NOTES))


class Comparison:
    """Trains or loads each way of deciding, in a folder, and measures all of them.

    Policies, thresholds and static networks share one codebook and the network that is specialised to it. Gates begin
    with the network as it was before, and are trained for as many epochs as that specialising takes. The uniform and
    the dense network are those that were given: adapting trained them, nothing here does. A threshold may run an image
    as often as a progressive policy. What the folder has already is not made again; an interrupted training is resumed.

    Args:
        elastic: the adapted network.
        splits: its images.
        out: the folder.
        settings: what is compared.
        training: of the specialised network; gates take epochs, batches, views and distillation from it.
        policy: of all policies, but for penalty and passes. What decides once sees features of the stem in any case
            (`pool`), because it would see nothing otherwise.
        teacher: whose predictions all trainings follow; the whole network's if None.
        metadata: notes on the network, stored with everything that is made of it.

    Raises:
        RLPruneError: policies that are paid in anything but MACs, or for a range of penalties; or a rival of somebody's
            own cannot be imported or called.
    """

    def __init__(
        self,
        elastic: ElasticCNN,
        splits: Splits,
        out: str | Path,
        settings: CompareSettings,
        training: SpecialiseSettings,
        policy: PolicySettings,
        teacher: Teacher | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if policy.cost != "macs" or policy.penalty_range:
            raise RLPruneError(
                f"policy.cost={policy.cost!r}, policy.penalty_range={policy.penalty_range}: policies are compared "
                "at equal MACs, for single penalties; allowed are macs, and no range"
            )
        self.rivals = find_rivals(settings.methods)
        self.elastic = elastic
        self.splits = splits
        self.out = Path(out)
        self.settings = settings
        self.training = training
        self.policy = policy
        self.teacher = teacher
        self.metadata = dict(metadata or {})
        self.candidates = Candidates(elastic, splits.test)
        self._logit_caches = LatestLogitCache(splits.policy, splits.validation)

    def run(self) -> ComparisonResult:
        """Make and measure everything.

        Raises:
            InUseError: another process works in the folder.
            RLPruneError: the folder holds what was made of other things or under other settings; the network has
                nothing for any of the methods; or a rival of somebody's own does not do as
                `rlprune.baselines.rivals.Rival` says.
            WriteError: there is no room for checkpoints.
        """
        made_with = {
            "n_profiles": self.settings.n_profiles,
            "n_candidates": self.settings.n_candidates,
            "training": as_noted(self.training),
            "policy": self.policy.noted(),
            "made_of": self._made_of(),
        }
        if not (self.out / "specialised").exists():
            check_checkpoint_room(self.out / "specialise.checkpoint.pt", self.elastic, self.training)
        note = noted(
            self.out / _NOTES,
            plain(made_with),
            what=f"what {self.out} holds",
            cure="made_of is network, images and teacher; go back to those, or name another folder",
            made=self.out / "specialised",
        )
        check_comparison(self.out)
        with hold(self.out, inside=True), note:
            return self._compare()

    def _made_of(self) -> str:
        """Tells networks, images and teachers apart."""
        images = self.splits.network
        parts = [*self.elastic.state_dict().values(), images.labels, images.images[:256]]
        if isinstance(self.teacher, nn.Module):
            parts += self.teacher.state_dict().values()
        elif self.teacher is not None:
            parts.append(self.teacher)
        return fingerprint(*parts)

    def _compare(self) -> ComparisonResult:
        for name in self.rivals:
            rehearse(name, self._given(name, self.elastic, self.elastic.full[None]))
        network = self._specialised()
        made = {name: [*self._own(name, network)] for name in self.rivals}  # first: they are new, and may fail
        made |= {method: [*self._of(method, network)] for method in self.settings.methods if method not in made}
        candidates = [one for method in self.settings.methods for one in made[method]]
        if not candidates:
            raise RLPruneError(f"methods={self.settings.methods}: this network has nothing for any of them")
        whole = self.candidates.static("uniform", "dense", self.elastic, self.elastic.full)
        everything = [whole, *candidates]
        measured = [self.candidates.measure(one) for one in everything]
        for batch in (1, min(64, len(self.splits.test))):
            times = self.candidates.time(everything, batch, self.settings.seconds)
            measured = [replace(row, ms={**row.ms, batch: ms}) for row, ms in zip(measured, times, strict=True)]
        dense, *rows = measured
        return ComparisonResult(
            rows=tuple(rows),
            dense=dense,
            at_equal_macs=at_equal_macs(rows),
            n_images=len(self.splits.test),
            conditions=Conditions.now(),
        )

    def _of(self, method: str, network: ElasticCNN) -> Iterator[Candidate]:
        """The points of a method."""
        if method == "uniform":
            for level in range(self.elastic.narrowest, self.elastic.n_levels):
                label = f"keep {self.elastic.keep_ratios[level]:g}"
                yield self.candidates.static(method, label, self.elastic, self.elastic.uniform(level))
        elif method == "static":
            for index, profile in enumerate(self._codebook):
                yield self.candidates.static(method, f"profile {index}", network, profile)
        elif method == "threshold":
            n_points = self.settings.n_points
            yield from self.candidates.thresholds(network, self._codebook, self.splits.policy, n_points)
        elif method in LEARNT:
            yield from self._learnt(method, network)
        else:
            yield from self._gates(method)

    def _own(self, name: str, network: ElasticCNN) -> Iterator[Candidate]:
        """The points of a rival of somebody's own."""
        for point in points_of(name, self._given(name, network, self._codebook)):
            yield self.candidates.own(name, network, point)

    def _given(self, name: str, network: ElasticCNN, codebook: Tensor) -> RivalInputs:
        """What a rival may work with."""
        return RivalInputs(
            adapted=self.elastic,
            network=network,
            codebook=codebook,
            training_images=self.splits.network,
            policy_images=self.splits.policy,
            validation_images=self.splits.validation,
            training=self.training,
            teacher=self.teacher,
            folder=self.out / name.replace(":", "."),
        )

    def _learnt(self, method: str, network: ElasticCNN) -> Iterator[Candidate]:
        """For every penalty the better of two policies, learnt from the highest down and from the lowest up."""
        settings = self._policy_settings(method)
        chain = PenaltyChain(self.out / "policies", prefix=f"{settings.max_passes}-")
        learn = partial(self._learn, network, settings)
        penalties = sorted(self.settings.penalties, reverse=True)
        ways = [chain.learn_down(learn, penalties)]
        if len(penalties) > 1:
            ways.append(chain.learn_up(learn, penalties))
        for penalty in penalties:
            label = f"penalty {penalty:g}"
            found = [self.candidates.dynamic(method, label, network, learnt[penalty]) for learnt in ways]
            yield max(found, key=partial(self._reward, penalty=penalty))

    def _policy_settings(self, method: str) -> PolicySettings:
        """How the policies of a method are trained, but for the penalty."""
        if method == "rl once":
            return replace(self.policy, max_passes=1, pool=self.policy.pool or 2, begin="auto")
        return replace(self.policy, max_passes=max(2, self.policy.max_passes))

    def _learn(
        self, network: ElasticCNN, settings: PolicySettings, penalty: float, folder: Path, start: Path | None
    ) -> Policy:
        """One policy, learnt here or before."""
        return train_policy(
            network,
            self.splits.policy,
            self.splits.validation,
            folder,
            replace(settings, penalty=penalty),
            codebook=self._codebook,
            start=start,
            resume=True,
            logit_caches=self._logit_caches.of(network, self._codebook),
        )

    def _reward(self, one: Candidate, penalty: float) -> float:
        """What a candidate earns on the images that policies learn from."""
        return self.candidates.reward(one, self.splits.policy, penalty)

    def _gates(self, method: str) -> Iterator[Candidate]:
        """Gated networks, trained here or before; none for branches where there are none."""
        if method == "branches" and not self._has_branches:
            return
        target = "sparsity" if method == "sparsity" else "density"
        values = self.settings.sparsities if method == "sparsity" else self.settings.densities
        kind = "branches" if method == "branches" else "channels"
        for value in values:
            network = self._gated(kind, self.out / f"{method}-{value:g}", {target: value})
            yield self.candidates.gated(method, f"{target} {value:g}", network)

    @cached_property
    def _has_branches(self) -> bool:
        try:
            return bool(GatedCNN(self.elastic, "branches").gated)
        except ModelError:
            return False

    def _gated(self, kind: str, folder: Path, target: dict[str, Any]) -> GatedCNN:
        """Gates of a kind, trained towards a target."""
        if not folder.exists():
            shared = {key: getattr(self.training, key) for key in _SHARED}
            settings = GateSettings(**shared, **target)
            torch.manual_seed(settings.seed)  # or the gates would begin as what was trained before them left it
            network = GatedCNN(self.elastic, kind)
            checkpointing = self._checkpointing(folder.name)
            train_gates(network, self.splits.network, settings, teacher=self.teacher, **checkpointing)
            save_gated(folder, network.cpu(), self.splits.network, self.metadata)
        return load_gated(folder).network

    @cached_property
    def _codebook(self) -> Tensor:
        """The profiles that a search finds, or the network is specialised to, int64 (K, G), cheapest first."""
        path = self.out / "codebook.json"
        settings = self.settings
        if self.elastic.codebook is not None:
            return self.elastic.codebook
        if not path.exists():
            found = search_profiles(self.elastic, self.splits.policy, settings.n_candidates, self.training.seed)
            write_json(path, choose_codebook(self.elastic, found, settings.n_profiles).tolist())
        return read_codebook(path)

    def _specialised(self) -> ElasticCNN:
        """The network, trained on under the codebook's profiles."""
        folder = self.out / "specialised"
        codebook = self._codebook
        if not folder.exists():
            network = copy.deepcopy(self.elastic)
            if network.codebook is None:
                network.specialise(codebook)
            checkpointing = self._checkpointing("specialise")
            adapt(network, self.splits.network, self.training, teacher=self.teacher, codebook=codebook, **checkpointing)
            save_network(folder, network.cpu(), self.splits.network, self.metadata)
        return load_network(folder).network

    def _checkpointing(self, name: str) -> dict[str, Any]:
        """Where a training's checkpoint and events go."""
        return {"checkpoint": self.out / f"{name}.checkpoint.pt", "log": scalar_log(self.out / "logs", name)}
