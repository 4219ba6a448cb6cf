"""The rules of the world, for any number of episodes at once; the environments are thin shells around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.envs.logit_cache import LazyTable, LogitCache
from rlprune.errors import RLPruneError
from rlprune.policies.actions import ActionKind, Actions
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange
from rlprune.profiles.codebook import uniform_codebook
from rlprune.profiles.cost import KINDS, ComputeCost, Cost
from rlprune.profiles.latency import Latency


@dataclass(eq=False)
class Episodes:
    """The state of n episodes; every tensor has n rows.

    Attributes:
        images: index of each episode's image.
        passes: made so far.
        logits: what is believed after the passes so far, (n, classes).
        macs: multiply-adds of the passes so far.
        levels: of the last pass, (n, G); -1 before the first.
        penalties: price of compute, float32.
    """

    images: Tensor
    passes: Tensor
    logits: Tensor
    macs: Tensor
    levels: Tensor
    penalties: Tensor

    def take(self, rows: Tensor) -> Episodes:
        """A copy of some rows."""
        return Episodes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def replace(self, rows: Tensor, fresh: Episodes) -> None:
        """Put fresh episodes into some rows."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(fresh, field.name)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a step did to n episodes; every tensor has n rows.

    Attributes:
        rewards: float32.
        done: whether the episode is over.
        correct: whether the prediction that stands now is right.
        predictions: its class, int64.
        params: active parameters of this step over the dense network's.
        macs: multiply-adds likewise.
        levels: the levels chosen, int64 (n, G); -1 where the last prediction was accepted.
        passes: made so far.
    """

    rewards: Tensor
    done: Tensor
    correct: Tensor
    predictions: Tensor
    params: Tensor
    macs: Tensor
    levels: Tensor
    passes: Tensor


class World:
    """Images, a network that can be pruned for each of them, and what that is worth.

    The arguments are those of `KeepRatioEnv`, which documents them.
    """

    def __init__(
        self,
        network: ElasticModule,
        data: ImageSet,
        *,
        action: ActionKind = "levels",
        codebook: Tensor | Sequence[Sequence[int]] | None = None,
        max_passes: int = 1,
        combine: float = 0.0,
        penalty: float | Sequence[float] = 0.3,
        cost: str | Latency = "macs",
        control_variate: bool = False,
        policy_cost: tuple[int, int] = (0, 0),
        observer: Observer | None = None,
        pool: int = 2,
        answers: LogitCache | None = None,
    ) -> None:
        if isinstance(cost, Latency):
            cost.check(network)
        elif cost not in KINDS:
            raise RLPruneError(f"cost kind {cost!r} is unknown; allowed: {', '.join(KINDS)}, or a measured Latency")
        self.penalty = float(penalty) if isinstance(penalty, int | float) else PenaltyRange.of(tuple(penalty))
        if not isinstance(self.penalty, PenaltyRange) and not self.penalty >= 0:
            raise RLPruneError(f"penalty is {penalty}; a number of 0 or more, or a range (lowest, highest), is needed")
        penalties = self.penalty if isinstance(self.penalty, PenaltyRange) else None
        if not len(data):
            raise RLPruneError("the image set is empty; an environment needs at least one image")
        self.network, self.data = network.eval(), data
        self.paid, self.control_variate = cost, control_variate
        self.cost = Cost(network)
        if action == "profiles" and codebook is None:
            codebook = uniform_codebook(network, self.cost)
        self.actions = Actions.from_network(network, action, codebook, max_passes)
        self.observer = observer or Observer.fit(
            network, data, max_passes=max_passes, pool=pool, combine=combine, penalties=penalties
        )
        _check_observer(self.observer, max_passes=max_passes, combine=combine, penalties=penalties)
        self._codebook = self.actions.codebook if self.actions.kind == "profiles" else None
        if self._codebook is not None:
            self._profile_cost = self.cost.of(self._codebook)
            if (self._profile_cost.macs.diff() < 0).any():
                raise RLPruneError("the codebook is not in order; sort it by multiply-adds, cheapest profile first")
        self._policy_cost = ComputeCost(*(torch.tensor(amount) for amount in policy_cost))
        self._features = LazyTable(len(data), len(self.observer.mean), self._compute_features, remember=True)
        self._answers = answers or LogitCache(network, data, self._codebook)
        self._answers.check(network, data, self._codebook)

    @property
    def observation_space(self) -> spaces.Box[np.float32]:
        """What the agent sees; `rlprune.policies.observations.Observer` lists the entries."""
        return spaces.Box(self.observer.low.numpy(), self.observer.high.numpy(), dtype=np.float32)

    @property
    def action_space(self) -> spaces.Space[NDArray[np.int64]] | spaces.Space[NDArray[np.float32]] | spaces.Discrete:
        """What the agent may do; `rlprune.policies.actions.Actions` says what it means."""
        choices = self.actions.n_choices
        if self.actions.kind == "profiles":
            return spaces.Discrete(choices[0])
        if self.actions.kind == "levels":
            return spaces.MultiDiscrete(np.array(choices))
        return spaces.Box(-1.0, 1.0, (self.actions.n_outputs,), np.float32)

    def draw(self, generator: np.random.Generator) -> tuple[int, float]:
        """An image, and the penalty of its episode: fixed, or drawn evenly by logarithm out of the range."""
        image = int(generator.integers(len(self.data)))
        if isinstance(self.penalty, PenaltyRange):
            return image, float(self.penalty.at(torch.tensor(generator.random())))
        return image, self.penalty

    def check_start(self, chosen: dict[str, Any]) -> tuple[int, float]:
        """The image and the penalty that somebody has chosen for an episode.

        Raises:
            RLPruneError: no such image; or no such penalty.
        """
        image, penalty, n_images = chosen.pop("image"), chosen.pop("penalty"), len(self.data)
        if chosen or not isinstance(image, int | np.integer) or not 0 <= image < n_images:
            raise RLPruneError(
                f"options={chosen or {'image': image}}: allowed are 'image', an index from 0 to {n_images - 1}, "
                "and 'penalty'"
            )
        ends = (self.penalty.low, self.penalty.high) if isinstance(self.penalty, PenaltyRange) else (self.penalty,) * 2
        if not isinstance(penalty, int | float) or not ends[0] <= penalty <= ends[1]:
            raise RLPruneError(f"options={{'penalty': {penalty}}}: allowed is {self.penalty}")
        return int(image), float(penalty)

    def begin(self, images: Tensor, penalties: Tensor | None = None) -> Episodes:
        """Start an episode for each image.

        Args:
            images: indices, int64 (n,).
            penalties: of the episodes, float32 (n,); if None, the fixed one, or those spread over the range in which
                each image always has the same.
        """
        n = len(images)
        if penalties is None and isinstance(self.penalty, PenaltyRange):
            penalties = self.penalty.spread(len(self.data))[images]
        elif penalties is None:
            assert not isinstance(self.penalty, PenaltyRange)
            penalties = torch.full((n,), self.penalty)
        n_classes = len(self.data.classes)
        return Episodes(
            images=images.clone(),
            passes=torch.zeros(n, dtype=torch.int64),
            logits=torch.zeros(n, n_classes),
            macs=self.cost.stem.macs.repeat(n),
            levels=torch.full((n, self.network.n_groups), -1),
            penalties=penalties,
        )

    def observe(self, episodes: Episodes) -> NDArray[np.float32]:
        """What the agent sees of each episode, float32 (n, D)."""
        spent = episodes.macs / self.cost.dense.macs
        features = self._features(episodes.images)
        observations = self.observer.observe(features, episodes.logits, episodes.passes, spent, episodes.penalties)
        return observations.numpy()

    def step(self, episodes: Episodes, actions: NDArray[np.int64] | NDArray[np.float32]) -> Outcome:
        """Run what the actions choose, or accept, and pay for it; the episodes change in place.

        Args:
            episodes: n of them, none over yet.
            actions: (n,) for a discrete space, else (n, entries).
        """
        raw = torch.as_tensor(actions).reshape(len(episodes.images), -1)
        self.actions.check(raw)
        levels, accept = self.actions.decode(raw)
        again = (levels == episodes.levels).all(1)  # what has just run would only say the same once more
        accept = (accept | again) & (episodes.passes > 0)
        runs = (~accept).nonzero().flatten()
        compute = self._run(episodes, runs, levels[runs], raw[runs])
        params = self._policy_cost.params.repeat(len(raw)).index_add(0, runs, compute.params)
        macs = self._policy_cost.macs.repeat(len(raw)).index_add(0, runs, compute.macs)
        done = accept | (episodes.passes >= self.actions.max_passes)
        predictions = episodes.logits.argmax(1)
        correct = predictions == self.data.labels[episodes.images]
        shares = ComputeCost(params / self.cost.dense.params, macs / self.cost.dense.macs)
        gain = correct.float()
        if self.control_variate:
            gain -= (self._answers.of_whole(episodes.images).argmax(1) == self.data.labels[episodes.images]).float()
        if isinstance(self.paid, Latency):
            price = self._time(self.paid, episodes, runs, levels[runs])
        else:
            price = shares.of_kind(self.paid)
        rewards = gain * done - episodes.penalties * price
        levels = torch.where(accept[:, None], -1, levels)
        return Outcome(rewards, done, correct, predictions, *shares, levels, episodes.passes.clone())

    def _time(self, latency: Latency, episodes: Episodes, rows: Tensor, levels: Tensor) -> Tensor:
        """Milliseconds of a decision for every episode, and of a pass for some rows, over the dense network's, (n,)."""
        times = torch.full((len(episodes.images),), latency.decision, dtype=torch.float64)
        if len(rows):
            times[rows] += latency.predict_ms(self.cost, levels) - (episodes.passes[rows] > 1) * latency.stem
        return (times / latency.dense).float()

    def _run(self, episodes: Episodes, rows: Tensor, levels: Tensor, raw: Tensor) -> ComputeCost:
        """One more pass of some episodes; what it costs, (rows,). Only the first pass pays for the stem."""
        if not len(rows):
            return ComputeCost(rows, rows)
        images, again = episodes.images[rows], (episodes.passes[rows] > 0).long()
        if self._codebook is not None:
            profiles = torch.where(raw[:, 0] < len(self._codebook), raw[:, 0], 0)
            logits = self._answers.of_profiles(images, profiles)
            whole = ComputeCost(*(amount[profiles] for amount in self._profile_cost))
        else:
            logits = self._answers.under(images, levels)
            whole = self.cost.of(levels)
        episodes.logits[rows] = self.observer.believe(episodes.logits[rows], logits, episodes.passes[rows])
        episodes.macs[rows] += whole.macs - self.cost.stem.macs
        episodes.passes[rows] += 1
        episodes.levels[rows] = levels
        return ComputeCost(whole.params - again * self.cost.stem.params, whole.macs - again * self.cost.stem.macs)

    @torch.no_grad()
    def _compute_features(self, images: Tensor) -> Tensor:
        stem_features = self.network.stem(self.data.normalised(images).to(self.network.widths.device))
        return self.observer.features(stem_features.cpu())


def first_information(world: World, episodes: Episodes) -> list[dict[str, Any]]:
    """What `info` says of every episode when it starts."""
    labels = world.data.labels[episodes.images].tolist()
    return [{"image": image, "label": label} for image, label in zip(episodes.images.tolist(), labels, strict=True)]


def information(world: World, episodes: Episodes, outcome: Outcome) -> list[dict[str, Any]]:
    """What `info` says of every episode after a step."""
    ratios = torch.tensor(world.network.keep_ratios)[outcome.levels.clamp_min(0)]
    ratios = torch.where(outcome.levels >= 0, ratios, torch.nan)
    columns = {
        "image": episodes.images.tolist(),
        "label": world.data.labels[episodes.images].tolist(),
        "prediction": outcome.predictions.tolist(),
        "accuracy": outcome.correct.float().tolist(),
        "active_params": outcome.params.tolist(),
        "active_macs": outcome.macs.tolist(),
        "passes": outcome.passes.tolist(),
        "keep_ratios": list(ratios.numpy()),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _check_observer(observer: Observer, **wanted: Any) -> None:
    """Make sure that an observer is for the same rules as the environment."""
    for name, value in wanted.items():
        if getattr(observer, name) != value:
            raise RLPruneError(f"the observer has {name}={getattr(observer, name)}, the environment {name}={value}")
