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

from rlprune.agents.callbacks import DeadlineCallback
from rlprune.agents.settings import PolicySettings
from rlprune.baselines.static_pruning import cheapest_share, static_profile
from rlprune.baselines.stored import load_plain, save_sliced
from rlprune.elastic.cnn import ElasticCNN
from rlprune.models.weights import load_weights, save_weights
from rlprune.optimization.entry.examined import Examined
from rlprune.optimization.entry.limit import TimeLimit
from rlprune.optimization.entry.memory import Memory, kept_logits
from rlprune.optimization.entry.pricing import draws, profiles_in_use, times_of, untrained_in_use
from rlprune.optimization.entry.trying import may_mirror
from rlprune.optimization.goal import Goal
from rlprune.optimization.plan import (
    DECIDING,
    PARTS,
    PRETRAIN,
    PRICING,
    SEARCHING,
    SLICES,
    SLICES_IN_USE,
    STATIC,
    Plan,
    profile_epochs_within,
)
from rlprune.optimization.subject import Subject
from rlprune.optimization.trained import Static, Trained, learnt_in
from rlprune.policies.policy import Policy
from rlprune.profiles.codebook import simple_profiles
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
from rlprune.utils.timing import Deadline

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
        limit: of the time that all of it may take.
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
        limit: TimeLimit,
        bar: WholeBar,
        device: str = "cpu",
    ) -> None:
        self.subject = subject
        self.goal = goal
        self.folder = folder
        self.seed = seed
        self.plan = plan
        self.limit = limit
        if (folder / "static").exists():  # by an earlier process
            self.limit.finish(STATIC)
        self.memory = Memory(folder)
        self._examined = examined
        self._bar = bar
        self._device = device
        self._learn = learn
        self._search = search

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do a step: its name is shown, and its time counted, also where it is interrupted."""
        start = time.monotonic()
        try:
            with self._bar.step(name), self.limit.step(name):
                yield
        finally:
            self.memory.count(name, time.monotonic() - start)

    @contextmanager
    def ending(self, name: str, least: float = 1.0) -> Iterator[Deadline | None]:
        """Do a step that can be cut short, and note what is left out; arguments are those of `TimeLimit.deadline`."""
        deadline = self.limit.deadline(name, least)
        try:
            with self.step(name):
                yield deadline
        finally:
            if deadline is not None and (deadline.skipped or deadline.missed):
                self.memory.leave_out(name, deadline.skipped, deadline.n_all)

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
            affords=self.limit.affords,
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
            with self.ending(PRETRAIN) as deadline:
                images = self.subject.splits.network
                pretrain(self.subject.model, images, settings, deadline=deadline, **self._kept("dense"))
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
        residual, resolution = self._examined.residual, self._examined.elastic.resolution
        shape = self.subject.image_shape
        return ElasticCNN.from_model(self.dense(), shape, residual=residual, resolution=resolution)

    def adapted(self) -> ElasticCNN:
        """The network made elastic, its slices of any width trained."""
        folder = self.folder / "adapted"
        if not folder.exists():
            elastic = self.original()
            settings = self._settings(AdaptSettings, self.plan.slice_epochs)
            with self.ending(SLICES) as deadline:
                how: dict[str, Any] = {"teacher": self._teacher(settings), "deadline": deadline} | self._kept("slices")
                adapt(elastic, self.subject.splits.network, settings, **how)
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
        with self.ending(PRICING) as deadline:
            late = None if deadline is None else deadline.past
            return times_of(elastic.cpu(), self.goal, path, self.limit.minutes, self.seed, late)

    def search(self, elastic: ElasticCNN) -> Search:
        """The static profiles that were tried, with their accuracy on images that teach the decisions."""
        path = self.folder / "search.json"
        if not path.exists():
            images = self.subject.splits.policy.subset(slice(0, _N_SEARCHED))
            n_candidates = self.plan.n_candidates if self.plan.slice_epochs else len(simple_profiles(elastic))
            latency = self.latency(elastic)
            with self.ending(SEARCHING) as deadline:
                how: dict[str, Any] = {} if deadline is None else {"late": deadline.past}
                found = self._search(elastic.to(self._device), images, n_candidates, self.seed, latency=latency, **how)
                elastic.cpu()
            write_json(path, found.to_json())
        return Search.from_json(json.loads(path.read_text()))

    def codebook(self, adapted: ElasticCNN, found: Search) -> Tensor:
        """The profiles in use: from the cheapest that promises enough, in even ratios up to the whole network.

        Where slices of any width were not trained, nothing is promised: simple ones, evenly.
        """
        return torch.tensor(self.memory.once("codebook", lambda: self._codebook(adapted, found).tolist()))

    def _codebook(self, elastic: ElasticCNN, found: Search) -> Tensor:
        allowed = self.goal.share_allowed(self._examined.dense_ms)
        if not self.plan.slice_epochs:
            return untrained_in_use(elastic, self.plan.n_profiles, allowed)
        return profiles_in_use(elastic, found, self.plan.n_profiles, allowed)

    def specialised(self, codebook: Tensor) -> ElasticCNN:
        """The network, trained on under the profiles in use; they share its weights, or each has its own."""
        folder = self.folder / "specialised"
        if not folder.exists():
            epochs, drawn = self.profile_epochs(), draws(self.plan, len(codebook))
            settings = replace(self._settings(SpecialiseSettings, epochs), **drawn)
            elastic = self.adapted()
            elastic.specialise(codebook)
            with self.ending(SLICES_IN_USE) as deadline:
                how: dict[str, Any] = {"deadline": deadline, "codebook": codebook} | self._kept("profiles")
                adapt(elastic, self.subject.splits.network, settings, teacher=self._teacher(settings), **how)
            save_network(folder, elastic.cpu(), self.subject.splits.network, self.subject.notes)
        return load_network(folder).network

    def profile_epochs(self) -> int:
        """Epochs of the slices in use and of the static rival, planned anew with the time that training has taken."""
        epochs = int(self.memory.once("profile_epochs", self._replanned, file="epochs"))
        for name in (SLICES_IN_USE, STATIC):
            seconds = self.plan.seconds.get(name, 0.0) * epochs / max(self.plan.profile_epochs, 1)
            self._bar.expect(name, seconds)
            self.limit.expect(name, seconds)
        return epochs

    def _replanned(self) -> int:
        size, pace = self._examined.size, self._examined.pace
        if not self.plan.slice_epochs:
            return self.plan.profile_epochs
        n_seen = self.plan.slice_epochs * size.n_network * (1 - self.memory.cut_short().get(SLICES, 0.0))
        per_image = self.memory.spent(SLICES) / n_seen
        left = self.limit.for_slices_in_use(max(1.0, per_image / pace.slices(self.plan.n_random)))
        assert sum(PARTS.values()) == 1
        return profile_epochs_within(self.plan, size, per_image, pace, left)

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
        with self.ending(DECIDING) as deadline:
            how: dict[str, Any] = {"codebook": codebook, "latency": latency, "resume": True}
            if deadline is not None:
                how["callbacks"] = DeadlineCallback(deadline, settings.total_steps)
            policy = self._learn(elastic.to(self._device), splits.policy, splits.validation, folder, settings, **how)
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
            made = max(1 - self.memory.cut_short().get(SLICES_IN_USE, 0.0), 1e-6)
            with self.ending(STATIC, 1 / made) as deadline:
                how: dict[str, Any] = {"teacher": self._teacher(settings), "deadline": deadline} | self._kept("static")
                pretrain(network, self.subject.splits.network, settings, **how)
            save_sliced(folder, network, adapted, profile, self.subject.splits.network, self.subject.notes)
            self.limit.finish(STATIC)
        stored = load_plain(folder)
        profile = torch.tensor(stored.metadata["profile"])
        return stored.network.eval(), cost.of(profile)

    def _static_profile(self, adapted: ElasticCNN, found: Search, share: float) -> Tensor:
        """The best profile tried within a cost; where uniform ones alone were, the most important channels anywhere."""
        share = min(share, 0.9999)
        if self.plan.slice_epochs or adapted.resolution:
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
