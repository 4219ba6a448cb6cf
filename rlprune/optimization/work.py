"""What an optimisation trains, step by step, in a folder: what is there already is not made again."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.agents.settings import PolicySettings
from rlprune.baselines.static_pruning import cheapest_share, static_profile
from rlprune.baselines.stored import load_plain, save_sliced
from rlprune.elastic.cnn import ElasticCNN
from rlprune.models.weights import load_weights, save_weights
from rlprune.optimization.entry.examined import Examined
from rlprune.optimization.entry.memory import Memory, kept_logits
from rlprune.optimization.entry.pricing import profiles_in_use, times_of
from rlprune.optimization.entry.trying import may_mirror
from rlprune.optimization.goal import Goal
from rlprune.optimization.plan import LOOKING, PARTS, PRICING, USED, Plan, profile_epochs_within
from rlprune.optimization.subject import Subject
from rlprune.optimization.trained import Static, Trained, learnt_in
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import sorted_codebook
from rlprune.profiles.cost import Cost
from rlprune.profiles.latency import Latency
from rlprune.profiles.search import Search, best_within, search_profiles
from rlprune.storage.networks import load_network, save_network
from rlprune.training.adaptation import AdaptSettings, SpecialiseSettings, adapt
from rlprune.training.distillation import Teacher
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import write_json
from rlprune.utils.progress import WholeBar
from rlprune.utils.tensorboard import scalar_log

_N_SEARCHED = 1000
"""Images that slices are judged by in the search, at most."""


class Work:
    """The trainings of an optimisation.

    Args:
        subject: what is optimised.
        examined: what the check found.
        goal: what is asked for.
        plan: what is done.
        folder: gets everything that is made, checkpoints and TensorBoard's events included.
        learn: `rlprune.agents.train.train_policy`, or what does the same elsewhere.
        search: `rlprune.profiles.search_profiles`, likewise.
        seed: of everything.
        minutes: time limit of the optimisation.
        bar: shows how far it is.
        device: where networks are trained.
    """

    def __init__(
        self,
        subject: Subject,
        examined: Examined,
        goal: Goal,
        plan: Plan,
        folder: Path,
        *,
        learn: Callable[..., Policy],
        search: Callable[..., Search] = search_profiles,
        seed: int,
        minutes: float,
        bar: WholeBar,
        device: str = "cpu",
    ) -> None:
        self.subject = subject
        self.goal = goal
        self.folder = folder
        self.seed = seed
        self.plan = plan
        self.minutes = minutes
        self.memory = Memory(folder)
        self._examined = examined
        self._bar = bar
        self._device = device
        self._learn = learn
        self._search = search

    @property
    def seconds(self) -> float:
        """That the steps have taken so far, in this process and in earlier ones."""
        return self.memory.seconds

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do a step: its name is shown, and its time counted, also where it is interrupted."""
        start = time.monotonic()
        try:
            with self._bar.step(name):
                yield
        finally:
            self.memory.count(name, time.monotonic() - start)

    def trained(self) -> Trained:
        """Everything but the static rival, whose cost follows from a choice."""
        adapted = self.adapted()
        found = self.search(adapted)
        codebook = self.codebook(adapted, found)
        elastic = self.specialised(codebook)
        return Trained(
            dense=self.dense(),
            original=self.original(),
            elastic=elastic,
            codebook=codebook,
            policy=self.policy(elastic, codebook),
            static=partial(self.static, adapted, found),
            step=self.step,
            timing=self.plan.timing,
            learnt=learnt_in(self.folder / "policy"),
        )

    def dense(self) -> nn.Module:
        """The network as it is, which is trained first if it has random weights; in eval mode."""
        if self.subject.trained:
            return self.subject.model
        path = self.folder / "dense.safetensors"
        if not path.exists():
            torch.manual_seed(self.seed)
            settings = self._settings(TrainingSettings, self.plan.pretrain_epochs, flip=self.plan.flip)
            settings = replace(settings, learning_rate=0.1 * self.plan.batch_size / 128, views=0)
            with self.step("training the network"):
                pretrain(self.subject.model, self.subject.splits.network, settings, **self._kept("dense"))
            save_weights(self.subject.model.cpu(), path)
        load_weights(self.subject.model, path)
        return self.subject.model.eval()

    def flip(self) -> bool:
        """Whether images are mirrored; a network that was trained first is asked then."""
        if not self._examined.asks_mirrored:
            return self.plan.flip

        def ask() -> bool:
            return may_mirror(self.dense(), self.subject.splits.validation, self._device)

        return bool(self.memory.once("flip", ask))

    def original(self) -> ElasticCNN:
        """The network as it is, made elastic; nothing of it is trained."""
        if self.subject.trained:
            return copy.deepcopy(self._examined.elastic)
        residual = self._examined.residual
        return ElasticCNN.from_model(self.dense(), self.subject.image_shape, residual=residual)

    def adapted(self) -> ElasticCNN:
        """The network made elastic, its slices of any width trained."""
        folder = self.folder / "adapted"
        if not folder.exists():
            elastic = self.original()
            settings = self._settings(AdaptSettings, self.plan.slice_epochs)
            with self.step("training slices"):
                teacher = self._teacher(settings)
                adapt(elastic, self.subject.splits.network, settings, teacher=teacher, **self._kept("slices"))
            save_network(folder, elastic.cpu(), self.subject.splits.network, self.subject.notes)
        return load_network(folder).network

    def latency(self, elastic: ElasticCNN) -> Latency | None:
        """What slices take, where that is paid for: the goal is a time, and any slice may come into use.

        What was begun before there were such prices goes on without.
        """
        path = self.folder / "latency.json"
        begun = (self.folder / "search.json").exists() and not path.exists()
        if not self.goal.bounds_time or not self.plan.slice_epochs or begun:
            return None
        with self.step(PRICING):
            return times_of(elastic.cpu(), self.goal, path, self.minutes, self.seed)

    def search(self, elastic: ElasticCNN) -> Search:
        """The static profiles that were tried, with their accuracy on images that teach the decisions."""
        path = self.folder / "search.json"
        if not path.exists():
            images = self.subject.splits.policy.subset(slice(0, _N_SEARCHED))
            n_candidates = self.plan.n_candidates if self.plan.slice_epochs else elastic.n_levels  # only uniform ones
            latency = self.latency(elastic)
            with self.step("searching slices"):
                found = self._search(elastic.to(self._device), images, n_candidates, self.seed, latency=latency)
                elastic.cpu()
            write_json(path, found.to_json())
        return Search.from_json(json.loads(path.read_text()))

    def codebook(self, adapted: ElasticCNN, found: Search) -> Tensor:
        """The profiles in use: from the cheapest that promises enough, in even ratios up to the whole network.

        Where slices of any width were not trained, nothing is promised: the same share of channels everywhere, evenly.
        """
        return torch.tensor(self.memory.once("codebook", lambda: self._codebook(adapted, found).tolist()))

    def _codebook(self, elastic: ElasticCNN, found: Search) -> Tensor:
        if not self.plan.slice_epochs:
            levels = torch.linspace(elastic.narrowest, elastic.n_levels - 1, self.plan.n_profiles).round().int()
            profiles = torch.stack([elastic.uniform(level) for level in levels.unique().tolist()])
            return sorted_codebook(profiles, Cost(elastic))
        return profiles_in_use(elastic, found, self.plan.n_profiles, self._allowed_share)

    @property
    def _allowed_share(self) -> float:
        """Share of the time, or of the multiply-adds, that the goal allows, where it says one."""
        shares = [1.0]
        if self.goal.max_macs is not None:
            shares.append(self.goal.max_macs)
        if self.goal.min_speedup is not None:
            shares.append(1 / self.goal.min_speedup)
        if self.goal.max_ms is not None:
            shares.append(self.goal.max_ms / self._examined.dense_ms)
        return min(shares)

    def specialised(self, codebook: Tensor) -> ElasticCNN:
        """The network, trained on under the profiles in use; its weights are shared by all of them."""
        folder = self.folder / "specialised"
        if not folder.exists():
            settings = self._settings(SpecialiseSettings, self.profile_epochs())
            settings = replace(settings, n_random=self.plan.n_random, shares=_shares(len(codebook)))
            elastic = self.adapted()
            elastic.specialise(codebook)
            with self.step("training the slices in use"):
                teacher = self._teacher(settings)
                images = self.subject.splits.network
                adapt(elastic, images, settings, teacher=teacher, codebook=codebook, **self._kept("profiles"))
            save_network(folder, elastic.cpu(), self.subject.splits.network, self.subject.notes)
        return load_network(folder).network

    def profile_epochs(self) -> int:
        """Epochs of the slices in use and of the static rival, planned anew with the time that training has taken."""
        epochs = int(self.memory.once("profile_epochs", self._replanned, file="epochs"))
        for name in ("training the slices in use", "training the static rival"):
            self._bar.expect(name, self.plan.seconds.get(name, 0.0) * epochs / max(self.plan.profile_epochs, 1))
        return epochs

    def _replanned(self) -> int:
        spent = self.memory.spent("training slices")
        size = self._examined.size
        if not self.plan.slice_epochs:
            return self.plan.profile_epochs
        per_image = spent / (self.plan.slice_epochs * size.n_network)
        others = {LOOKING, "training the network", "training slices", "searching slices", "training the static rival"}
        later = sum(seconds for name, seconds in self.plan.seconds.items() if name not in others)
        later -= self.plan.seconds.get("training the slices in use", 0.0)
        left = 60 * self.minutes * USED - self.seconds - later
        assert sum(PARTS.values()) == 1
        return profile_epochs_within(self.plan, size, per_image, self._examined.pace, left)

    def policy(self, elastic: ElasticCNN, codebook: Tensor) -> Policy:
        """One policy for a range of penalties, learnt on images that did not train the network."""
        splits, latency = self.subject.splits, self.latency(elastic)
        settings = PolicySettings(
            penalty_range=tuple(self.plan.penalties),
            cost="macs" if latency is None else "latency",
            max_passes=self.plan.max_passes,
            pool=self.plan.pool,
            total_steps=self.plan.policy_steps,
            validate_every=max(self.plan.policy_steps // 4, 1),
            seed=self.seed,
        )
        folder = self.folder / "policy"
        with self.step("learning to decide"):
            elastic.to(self._device)
            sets = (splits.policy, splits.validation)
            policy = self._learn(elastic, *sets, folder, settings, codebook=codebook, latency=latency, resume=True)
        elastic.cpu()
        return policy

    def static(self, adapted: ElasticCNN, found: Search, share: float) -> Static:
        """One small network for all images, trained for as many steps as the slices in use, with the same teacher.

        Args:
            adapted: what it is cut from.
            found: the profiles that were tried; the best within its cost is taken.
            share: multiply-adds that it may cost, over the whole network's.

        Returns:
            The network, and what it costs.
        """
        folder = self.folder / "static"
        cost = Cost(adapted)
        if not folder.exists():
            find = partial(self._static_profile, adapted, found, share)
            profile = torch.tensor(self.memory.once("static", lambda: find().tolist()))
            network = adapted.slice(profile)
            settings = self._settings(TrainingSettings, self.profile_epochs())
            with self.step("training the static rival"):
                teacher = self._teacher(settings)
                pretrain(network, self.subject.splits.network, settings, teacher=teacher, **self._kept("static"))
            save_sliced(folder, network, adapted, profile, self.subject.splits.network, self.subject.notes)
        stored = load_plain(folder)
        profile = torch.tensor(stored.metadata["profile"])
        return stored.network.eval(), cost.of(profile)

    def _static_profile(self, adapted: ElasticCNN, found: Search, share: float) -> Tensor:
        """The best profile of the search within a cost; without a search, the most important channels anywhere."""
        share = min(share, 0.9999)
        if self.plan.slice_epochs:
            found = found.by_macs(adapted)
            return best_within(adapted, found, [max(share, float(found.price.min()))])[0]
        share = max(share, cheapest_share(adapted, "global"))
        return static_profile(adapted, share, "global", self.subject.splits.policy)

    def _settings(self, kind: type[Any], epochs: int, *, flip: bool | None = None) -> Any:
        plan = self.plan
        return kind(
            epochs=epochs,
            batch_size=plan.batch_size,
            learning_rate=plan.learning_rate,
            flip=self.flip() if flip is None else flip,
            padding=plan.padding,
            views=plan.views,
            device=self._device,
            seed=self.seed,
        )

    def _teacher(self, settings: TrainingSettings) -> Teacher:
        """The network as it is; where views are kept, what it says of them, which is computed once."""
        dense = self.dense()
        if not settings.views:
            return dense
        path = self.folder / "teacher.safetensors"
        return kept_logits(path, dense, self.subject, settings)

    def _kept(self, name: str) -> dict[str, Any]:
        """Where a training's checkpoint and events go."""
        return {"checkpoint": self.folder / f"{name}.checkpoint.pt", "log": scalar_log(self.folder / "logs", name)}


def _shares(n_profiles: int) -> tuple[float, ...]:
    """How often each profile is drawn: not the ends, which every step trains anyway, where there are others."""
    return (1.0,) * n_profiles if n_profiles < 3 else (0.0, *(1.0,) * (n_profiles - 2), 0.0)
