"""All known ways of deciding what an image runs through, from one network, side by side."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.baselines.cascade import Cascade, best_cascades, cascade_policy, within
from rlprune.baselines.gate_training import GateSettings, train_gates
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.baselines.stored import load_gated, save_gated
from rlprune.data.image_set import ImageSet, Splits, normalise
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.levels import MAX_PROFILES
from rlprune.envs.logit_cache import LatestLogitCache
from rlprune.errors import ModelError, RLPruneError
from rlprune.evaluation.dynamic import codebook_logits
from rlprune.evaluation.results import Conditions
from rlprune.evaluation.timing_results import ComparisonResult, ComparisonRow
from rlprune.graph.folding import optimize_for_inference
from rlprune.metrics import wilson_interval
from rlprune.pipelines.candidates import LEARNT, METHODS, Candidate, Method, at_equal_macs
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost
from rlprune.profiles.search import choose_codebook, search_profiles
from rlprune.storage.networks import load_network, save_network
from rlprune.training.adaptation import SpecialiseSettings, adapt
from rlprune.training.distillation import Teacher
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import write_json
from rlprune.utils.tensorboard import scalar_log
from rlprune.utils.timing import Turns, interleaved

_PER_TURN, _AT_ONCE = 32, 64
"""Images that are timed together at least, and that run together at most, as a `DynamicCNN` has them."""
_SHARED = {field.name for field in fields(TrainingSettings)}


@dataclass(frozen=True)
class CompareSettings:
    """What is compared, and at which points."""

    methods: tuple[Method, ...] = METHODS
    """Ways of deciding."""
    penalties: tuple[float, ...] = (0.3, 0.1, 0.03)
    """Prices of compute at which policies are learnt, from the highest down and from the lowest up, each begun with the
    one before; of the two the one counts that earns more on the images that it learnt from."""
    densities: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Shares that gates, of channels and of branches, are trained towards."""
    sparsities: tuple[float, ...] = (0.003, 0.01, 0.03)
    """Weights of the L1 norm that gates are trained under instead."""
    n_profiles: int = 4
    """Of the codebook that policies, thresholds and static networks share."""
    n_candidates: int = 64
    """Static profiles tried in the search for it."""
    n_points: int = 6
    """Budgets at which a threshold is chosen."""
    seconds: float = 20.0
    """Time to spend on timing, for each batch size."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise RLPruneError(f"methods={self.methods}: allowed are {', '.join(METHODS)}")
        if self.n_points < 1 or not 1 <= self.n_profiles <= MAX_PROFILES:
            raise RLPruneError(
                f"n_points={self.n_points}, n_profiles={self.n_profiles}: allowed are 1 or more, 1 to {MAX_PROFILES}"
            )
        if min((0.0, *self.penalties, *self.sparsities)) < 0 or not all(0 < share < 1 for share in self.densities):
            raise RLPruneError(
                f"penalties={self.penalties}, densities={self.densities}, sparsities={self.sparsities}: allowed are 0 "
                "or more, shares between 0 and 1, and 0 or more"
            )


class Comparison:
    """Trains or loads each way of deciding, in a folder, and measures all of them.

    Policies, thresholds and static networks share one codebook and the network that is specialised to it; gates begin
    with the network as it was before, and are trained for as many epochs as that specialising takes. The uniform and
    the dense network are those that were given: adapting trained them, nothing here does. A threshold may look as often
    as a progressive policy. What the folder has already is not made again, and an interrupted training is gone on with.

    Args:
        elastic: the adapted network.
        splits: its images.
        out: the folder.
        settings: what is compared.
        training: of the specialised network; gates take their epochs, batches, views and teacher's part from it.
        policy: of all policies, but for penalty and passes. What decides once sees features of the stem in any case
            (`pool`), or it would see nothing.
        teacher: whose predictions all trainings follow; the whole network's if None.
        about: notes on the network, which what is made of it keeps.

    Raises:
        RLPruneError: policies that are paid in anything but multiply-adds, or for a range of penalties.
    """

    def __init__(
        self,
        elastic: ElasticCNN,
        splits: Splits,
        out: Path,
        settings: CompareSettings,
        training: SpecialiseSettings,
        policy: PolicySettings,
        teacher: Teacher | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if policy.cost != "macs" or policy.penalty_range:
            raise RLPruneError(
                f"policy.cost={policy.cost!r}, policy.penalty_range={policy.penalty_range}: policies are compared "
                "at equal multiply-adds, for single penalties; allowed are macs, and no range"
            )
        self.metadata = dict(metadata or {})
        self.elastic, self.splits, self.out = elastic, splits, out
        self.settings, self.training, self.policy, self.teacher = settings, training, policy, teacher
        self.dense = Cost(elastic).dense
        self._answers = LatestLogitCache(splits.policy, splits.validation)

    def run(self) -> ComparisonResult:
        """Make and measure everything."""
        with self._noted():
            return self._compared()

    def _compared(self) -> ComparisonResult:
        network = self._specialised()
        candidates = [one for method in self.settings.methods for one in self._of(method, network)]
        if not candidates:
            raise RLPruneError(f"methods={self.settings.methods}: this network has nothing for any of them")
        whole = self._static("uniform", "dense", self.elastic, self.elastic.full)
        everything = [whole, *candidates]
        measured = [self._measured(one) for one in everything]
        for batch in (1, min(64, len(self.splits.test))):
            times = self._timed(everything, batch)
            measured = [replace(row, ms={**row.ms, batch: ms}) for row, ms in zip(measured, times, strict=True)]
        dense, *rows = measured
        return ComparisonResult(
            rows=tuple(rows),
            dense=dense,
            at_equal_macs=at_equal_macs(rows),
            n_images=len(self.splits.test),
            conditions=Conditions.now(),
        )

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Write down what everything is made with and from; what was made otherwise is not mixed with it."""
        path, settings = self.out / "settings.json", self.settings
        new = not path.exists()
        made_with: dict[str, Any] = {"n_profiles": settings.n_profiles, "n_candidates": settings.n_candidates}
        made_with |= {"training": asdict(self.training), "policy": asdict(self.policy), "made_of": self._fingerprint()}
        described = json.loads(json.dumps(made_with))
        if new:
            write_json(path, described)
        elif (before := json.loads(path.read_text())) != described:
            changed = [key for key, value in described.items() if before.get(key) != value]
            raise RLPruneError(
                f"{self.out} holds what was made under other settings ({', '.join(changed)}; made_of is network, "
                f"images and teacher), which {path} has: go back to those, or name another folder"
            )
        try:
            yield
        except RLPruneError:
            if new and not (self.out / "specialised").exists():
                path.unlink()  # such settings cannot be: there is nothing to go back to
            raise

    def _fingerprint(self) -> str:
        """Tells networks, images and teachers apart."""
        teacher = self.teacher.state_dict().values() if isinstance(self.teacher, nn.Module) else [self.teacher]
        images = self.splits.network
        digest = hashlib.sha256()
        for tensor in (*self.elastic.state_dict().values(), images.labels, images.images[:256], *teacher):
            if isinstance(tensor, Tensor):
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _of(self, method: Method, network: ElasticCNN) -> Iterator[Candidate]:
        """The points of a method."""
        codebook = self._codebook
        if method == "uniform":
            for level in range(self.elastic.narrowest, self.elastic.n_levels):
                label = f"keep {self.elastic.keep_ratios[level]:g}"
                yield self._static(method, label, self.elastic, self.elastic.uniform(level))
        elif method == "static":
            for index, profile in enumerate(codebook):
                yield self._static(method, f"profile {index}", network, profile)
        elif method == "threshold":
            yield from self._thresholds(network)
        elif method in LEARNT:
            yield from self._learnt(method, network)
        else:
            yield from self._gates(method)

    def _learnt(self, method: Method, network: ElasticCNN) -> Iterator[Candidate]:
        """Policies for every penalty: begun with the next higher one's, or the next lower one's, whichever is better.

        What is seldom found where compute is dear, such as a cascade, comes there from below.
        """
        falling = sorted(self.settings.penalties, reverse=True)
        chains = [self._chain(method, network, falling, "policies")]
        if len(falling) > 1:
            chains.append(self._chain(method, network, falling[::-1], "policies-up"))
        for penalty in falling:
            found = [self._dynamic(method, f"penalty {penalty:g}", network, chain[penalty]) for chain in chains]
            yield max(found, key=partial(self._reward, penalty=penalty))

    def _chain(self, method: Method, network: ElasticCNN, penalties: Sequence[float], name: str) -> dict[float, Policy]:
        """Policies for penalties, each begun with the one before, learnt here or before."""
        once, start, own = method == "rl once", None, self.policy
        max_passes, pool = (1, own.pool or 2) if once else (max(2, own.max_passes), own.pool)
        learnt = {}
        for penalty in penalties:
            settings = replace(own, penalty=penalty, max_passes=max_passes, pool=pool)
            folder = self.out / name / f"{settings.max_passes}-{penalty:g}"
            learnt[penalty] = train_policy(
                *(network, self.splits.policy, self.splits.validation, folder, settings),
                codebook=self._codebook,
                start=start,
                resume=True,
                answers=self._answers.of(network, self._codebook),
            )
            start = folder
        return learnt

    def _reward(self, one: Candidate, penalty: float) -> float:
        """What a candidate earns on the images that policies learn from."""
        images = self.splits.policy
        labels, macs = self._predicted(one, images)
        return float((labels == images.labels).double().mean() - penalty * macs.double().mean() / self.dense.macs)

    def _thresholds(self, network: ElasticCNN) -> Iterator[Candidate]:
        """Cascades for budgets in even steps, chosen on the images that policies learn from."""
        images, codebook = self.splits.policy, self._codebook
        narrow = self._dynamic_cnn(network, cascade_policy(network, codebook, Cascade((0,), 0.0)))
        best = best_cascades(network, codebook, codebook_logits(narrow, images), images.labels)
        budgets = np.linspace(best[0].price, best[-1].price, self.settings.n_points)
        for cascade in dict.fromkeys(within(best, float(budget)) for budget in budgets):
            steps = " > ".join(map(str, cascade.steps))
            label = f"profile {steps}" + (f" below {cascade.margin:.2f}" if len(cascade.steps) > 1 else "")
            yield self._dynamic("threshold", label, network, cascade_policy(network, codebook, cascade))

    def _gates(self, method: Method) -> Iterator[Candidate]:
        """Gated networks, trained here or before; none for branches where there are none."""
        settings = self.settings
        if method == "branches" and not self._has_branches:
            return
        for value in settings.sparsities if method == "sparsity" else settings.densities:
            what = {"sparsity" if method == "sparsity" else "density": value}
            network = self._gated("branches" if method == "branches" else "channels", f"{method} {value:g}", what)
            yield Candidate(
                method,
                f"{'sparsity' if method == 'sparsity' else 'density'} {value:g}",
                _Gated(network, self),
                _Gated(network.prepared(), self).run,
                float(network.gates_cost.macs / self.dense.macs),
                method == "branches",
            )

    @cached_property
    def _has_branches(self) -> bool:
        try:
            return bool(GatedCNN(self.elastic, "branches").gated)
        except ModelError:
            return False

    def _gated(self, kind: str, name: str, what: Mapping[str, Any]) -> GatedCNN:
        folder = self.out / name.replace(" ", "-")
        if not folder.exists():
            shared = {key: getattr(self.training, key) for key in _SHARED}
            training, network = GateSettings(**shared, **what), GatedCNN(self.elastic, kind)
            train_gates(network, self.splits.network, training, teacher=self.teacher, **self._kept(folder.name))
            save_gated(folder, network.cpu(), self.splits.network, self.metadata)
        return load_gated(folder).network

    @cached_property
    def _codebook(self) -> Tensor:
        """The profiles that a search finds, or the network is specialised to, int64 (K, G), cheapest first."""
        path, settings = self.out / "codebook.json", self.settings
        if self.elastic.codebook is not None:
            return self.elastic.codebook
        if not path.exists():
            found = search_profiles(self.elastic, self.splits.policy, settings.n_candidates, self.training.seed)
            write_json(path, choose_codebook(self.elastic, found, settings.n_profiles).tolist())
        return torch.tensor(json.loads(path.read_text()))

    def _specialised(self) -> ElasticCNN:
        """The network, trained on under the codebook's profiles."""
        folder, codebook = self.out / "specialised", self._codebook
        if not folder.exists():
            network, kept = copy.deepcopy(self.elastic), self._kept("specialise")
            if network.codebook is None:
                network.specialise(codebook)
            adapt(network, self.splits.network, self.training, teacher=self.teacher, codebook=codebook, **kept)
            save_network(folder, network.cpu(), self.splits.network, self.metadata)
        return load_network(folder).network

    def _dynamic_cnn(self, network: ElasticCNN, policy: Policy) -> DynamicCNN:
        images = self.splits.test
        return DynamicCNN(network, policy, images.mean, images.std, images.classes, memory=math.inf)

    def _dynamic(self, method: Method, label: str, network: ElasticCNN, policy: Policy) -> Candidate:
        dynamic = self._dynamic_cnn(network, policy)

        def predict(images: Tensor) -> tuple[Tensor, Tensor]:
            predicted = dynamic(images)
            return predicted.labels, predicted.macs

        decision = float(dynamic.prices.decision.macs / self.dense.macs)
        return Candidate(method, label, predict, dynamic, decision)

    def _static(self, method: Method, label: str, network: ElasticCNN, profile: Tensor) -> Candidate:
        small, macs = optimize_for_inference(network.slice(profile)), Cost(network).of(profile).macs

        def run(images: Tensor) -> Tensor:
            parts = self.normalised(images).contiguous(memory_format=torch.channels_last).split(_AT_ONCE)
            return torch.cat([small(part) for part in parts])

        return Candidate(method, label, lambda images: (run(images).argmax(1), macs.expand(len(images))), run)

    def normalised(self, images: Tensor) -> Tensor:
        """Pixels uint8 (B, C, H, W) as networks take them."""
        return normalise(images, self.splits.test.mean, self.splits.test.std)

    @torch.inference_mode()
    def _predicted(self, one: Candidate, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Labels and multiply-adds of a set, int64 (N,) each."""
        labels, macs = map(torch.cat, zip(*map(one.predict, images.images.split(256)), strict=True))
        return labels, macs

    def _measured(self, one: Candidate) -> ComparisonRow:
        """Accuracy and cost of a point on the test images."""
        test = self.splits.test
        labels, macs = self._predicted(one, test)
        n_correct = int((labels == test.labels).sum())
        return ComparisonRow(
            method=one.method,
            label=one.label,
            accuracy=n_correct / len(test),
            accuracy_interval=wilson_interval(n_correct, len(test)),
            macs_share=float(macs.double().mean() / self.dense.macs),
            decision_share=one.decision,
            saves_time=one.saves_time,
            ms={},
        )

    @torch.inference_mode()
    def _timed(self, candidates: Sequence[Candidate], batch: int) -> list[float]:
        """Median milliseconds of a batch for each, in turns on the same images."""
        images, n_batches = self.splits.test.images, -(-_PER_TURN // batch)
        turns = {str(i): Turns(one.run, images, batch, n_batches) for i, one in enumerate(candidates)}
        return [float(np.median(ms)) / n_batches for ms in interleaved(turns, self.settings.seconds).values()]

    def _kept(self, name: str) -> dict[str, Any]:
        """Where a training's checkpoint and events go."""
        return {"checkpoint": self.out / f"{name}.checkpoint.pt", "log": scalar_log(self.out / "logs", name)}


class _Gated:
    """A gated network on pixels."""

    def __init__(self, network: GatedCNN, comparison: Comparison) -> None:
        self.network, self.normalised = network, comparison.normalised

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and multiply-adds."""
        decided = self.network.decide(self.normalised(images))
        return decided.logits.argmax(1), decided.compute.macs

    def run(self, images: Tensor) -> Tensor:
        """Logits alone."""
        parts = self.normalised(images).contiguous(memory_format=torch.channels_last).split(_AT_ONCE)
        return torch.cat([self.network(part) for part in parts])
