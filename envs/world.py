"""The world, for any number of episodes at once; the environments are thin shells around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.envs.arguments import check_images, check_network, check_observer, checked_rules, shown
from rlprune.envs.episodes import Episodes, Outcome
from rlprune.envs.logit_cache import LazyTable, LogitCache, fitted_observer
from rlprune.envs.rewards import Step, checked_rewards
from rlprune.envs.rules import Rules
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange
from rlprune.profiles.codebook import uniform_codebook
from rlprune.profiles.cost import ComputeCost, Cost
from rlprune.profiles.latency import Latency


class World:
    """Images, a network that can be pruned for each of them, and what that is worth.

    Attributes:
        penalty: the price of compute in all episodes, or the range that the prices of single episodes come from.
        reward: what a step is worth.
        logit_cache: what the network says of the images; it may serve several worlds.

    Args:
        network: the elastic network; put into eval mode.
        data: images that did not train it.
        codebook: int64 (K, G) profiles, cheapest first; for `action="profiles"`. Uniform ones if None.
        observer: what builds observations; fitted to `data`, or to `fitted_to`, if None.
        fitted_to: other images that observations are standardised by, such as those that train the policy.
        logit_cache: of this network, these images and this codebook, to share it with other worlds; a new one if None.
        rules: fields of `Rules`, by keyword: the other arguments of `KeepRatioEnv`, which documents all of them.

    Raises:
        RLPruneError: there are no images, the codebook is not in order, or the rules, the observer or the cache do not
            fit the rest.
    """

    def __init__(
        self,
        network: ElasticModule,
        data: ImageSet,
        *,
        codebook: Tensor | Sequence[Sequence[int]] | None = None,
        observer: Observer | None = None,
        fitted_to: ImageSet | None = None,
        logit_cache: LogitCache | None = None,
        **rules: Any,
    ) -> None:
        check_images(data, check_network(network))
        check_observer(observer)
        self.rules = Rules(**checked_rules(rules))
        self.rules.check_latency(network)
        if observer is not None and self.rules.observation is not None:
            raise RLPruneError("an observer and an observation are given; give one: an observer has its observation")
        self.reward = self.rules.make_reward()
        self.network = network.eval()
        self.data = data
        self.penalty = self.rules.price
        self.cost = Cost(network)
        self.actions = self._make_actions(codebook)
        self.observer = observer or self._fit_observer(fitted_to or data)
        self.rules.check_observer(self.observer)
        self._codebook = self.actions.codebook if self.actions.kind == "profiles" else None
        if self._codebook is not None:
            self._profile_cost = self._priced(self._codebook)
        self._policy_cost = ComputeCost(*(torch.tensor(amount) for amount in self.rules.policy_cost))
        self._features = LazyTable(1, len(data), self.observer.n_features, self._compute_features, keep=True)
        self.logit_cache = logit_cache or LogitCache(network, data, self._codebook)
        self.logit_cache.check(network, data, self._codebook)
        if self.rules.reward is not None:
            self._try_reward()

    def __repr__(self) -> str:
        """In one line."""
        return f"World({self.data}; {self.actions}; {self.observer}; penalty {self.penalty})"

    def _make_actions(self, codebook: Tensor | Sequence[Sequence[int]] | None) -> Actions:
        if self.rules.action == "profiles" and codebook is None:
            codebook = uniform_codebook(self.network, self.cost)
        return Actions.from_network(self.network, self.rules.action, codebook, self.rules.max_passes)

    def _fit_observer(self, images: ImageSet) -> Observer:
        rules = self.rules
        return fitted_observer(
            self.network,
            images,
            max_passes=rules.max_passes,
            pool=rules.pool,
            combine=rules.combine,
            penalties=rules.penalties,
            observation=rules.observation,
        )

    def _try_reward(self) -> None:
        """Ask an own reward for episodes that go on and that end, before anybody relies on it.

        Raises:
            RLPruneError: it fails, or gives something else than finite numbers.
        """
        episodes = self.begin(torch.zeros(2, dtype=torch.int64))
        half, done = torch.full((2,), 0.5), torch.tensor([False, True])
        seen = self._seen(episodes, episodes.levels, ComputeCost(half, half), half, done, done.clone())
        checked_rewards(self.reward, seen)

    def _priced(self, codebook: Tensor) -> ComputeCost:
        """What the profiles of a codebook cost, (K,) each, if they are in order."""
        cost = self.cost.of(codebook)
        if (cost.macs.diff() < 0).any():
            raise RLPruneError("the codebook is not in order; sort it by MACs, cheapest profile first")
        return cost

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

    def check_logits(self) -> None:
        """Make sure that the network's logits are finite, on some images.

        Raises:
            NotFiniteError: one is NaN or infinite.
        """
        self.logit_cache.check_logits()

    def profile_logits(self, n: int) -> Tensor:
        """Logits of the first n images under every profile of the codebook, float32 (K, n, classes)."""
        assert self._codebook is not None
        images = torch.arange(n)
        return torch.stack(
            [self.logit_cache.of_profiles(images, torch.full_like(images, k)) for k in range(len(self._codebook))]
        )

    def draw(self, generator: np.random.Generator) -> tuple[int, float]:
        """An image, and the penalty of its episode: fixed, or drawn evenly by logarithm out of the range."""
        image = int(generator.integers(len(self.data)))
        if isinstance(self.penalty, PenaltyRange):
            return image, float(self.penalty.at(torch.tensor(generator.random())))
        return image, self.penalty

    def check_options(self, options: Any) -> None:
        """Make sure that episodes can begin as somebody says, before one is drawn.

        Raises:
            RLPruneError: no such image; or no such penalty.
        """
        if options is not None and not isinstance(options, Mapping):
            raise RLPruneError(f"options={shown(options)}: give a dict with 'image', 'penalty', or both")
        any_penalty = self.penalty.low if isinstance(self.penalty, PenaltyRange) else self.penalty
        self.check_start({"image": 0, "penalty": any_penalty, **(options or {})})

    def check_start(self, chosen: dict[str, Any]) -> tuple[int, float]:
        """The image and the penalty that somebody has chosen for an episode.

        Raises:
            RLPruneError: no such image; or no such penalty.
        """
        image = chosen.pop("image")
        penalty = chosen.pop("penalty")
        n_images = len(self.data)
        if chosen or not _is_index(image, n_images):
            raise RLPruneError(
                f"options={chosen or {'image': image}}: allowed are 'image', an index from 0 to {n_images - 1}, "
                "and 'penalty'"
            )
        allowed = self.penalty
        low, high = (allowed.low, allowed.high) if isinstance(allowed, PenaltyRange) else (allowed, allowed)
        if (
            isinstance(penalty, bool)
            or not isinstance(penalty, int | float | np.floating)
            or not low <= penalty <= high
        ):
            raise RLPruneError(f"options={{'penalty': {penalty}}}: allowed is {allowed}")
        return int(image), float(penalty)

    def begin(self, images: Tensor, penalties: Tensor | None = None) -> Episodes:
        """Start an episode for each image.

        Args:
            images: indices, int64 (n,).
            penalties: of the episodes, float32 (n,). If None, the fixed one; where there is a range, penalties spread
                over it, of which each image always gets the same.
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
        features = self._features(torch.zeros_like(episodes.images), episodes.images)
        observations = self.observer.observe(features, episodes.logits, episodes.passes, spent, episodes.penalties)
        return observations.numpy()

    def step(self, episodes: Episodes, actions: NDArray[Any] | Tensor) -> Outcome:
        """Run what the actions choose, or accept, and pay for it; the episodes change in place.

        Args:
            episodes: n of them, none over yet.
            actions: (n,) for a discrete space, else (n, entries).

        Raises:
            LevelsError: actions of another type or shape, or outside the action space.
        """
        raw = self.actions.read(actions, len(episodes.images))
        levels, accept = self.actions.decode(raw)
        repeated = (levels == episodes.levels).all(1)  # the same profile would only give the same logits again
        accept = (accept | repeated) & (episodes.passes > 0)
        running = (~accept).nonzero().flatten()
        compute = self._run(episodes, running, levels[running], raw[running])
        spent = ComputeCost(
            self._policy_cost.params.repeat(len(raw)).index_add(0, running, compute.params),
            self._policy_cost.macs.repeat(len(raw)).index_add(0, running, compute.macs),
        )
        shares = ComputeCost(spent.params / self.cost.dense.params, spent.macs / self.cost.dense.macs)
        done = accept | (episodes.passes >= self.actions.max_passes)
        predictions = episodes.logits.argmax(1)
        correct = predictions == self.data.labels[episodes.images]
        if isinstance(self.rules.cost, Latency):
            price = self._time(self.rules.cost, episodes, running, levels[running])
        else:
            price = shares.of_kind(self.rules.cost)
        levels = torch.where(accept[:, None], -1, levels)
        rewards = checked_rewards(self.reward, self._seen(episodes, levels, shares, price, done, correct))
        return Outcome(rewards, done, correct, predictions, *shares, levels, episodes.passes.clone())

    def _seen(
        self, episodes: Episodes, levels: Tensor, shares: ComputeCost, price: Tensor, done: Tensor, correct: Tensor
    ) -> Step:
        """A step as a reward sees it."""
        images = episodes.images
        return Step(
            images=images,
            labels=self.data.labels[images],
            logits=episodes.logits,
            correct=correct,
            done=done,
            passes=episodes.passes,
            levels=levels,
            params=shares.params,
            macs=shares.macs,
            price=price,
            penalties=episodes.penalties,
            compute_whole=lambda: self.logit_cache.of_whole(images),
        )

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
        images = episodes.images[rows]
        is_later = (episodes.passes[rows] > 0).long()
        if self._codebook is not None:
            profiles = torch.where(raw[:, 0] < len(self._codebook), raw[:, 0], 0)
            logits = self.logit_cache.of_profiles(images, profiles)
            whole = ComputeCost(*(amount[profiles] for amount in self._profile_cost))
        else:
            logits = self.logit_cache.under(images, levels)
            whole = self.cost.of(levels)
        episodes.logits[rows] = self.observer.believe(episodes.logits[rows], logits, episodes.passes[rows])
        episodes.macs[rows] += whole.macs - self.cost.stem.macs
        episodes.passes[rows] += 1
        episodes.levels[rows] = levels
        stem = self.cost.stem
        return ComputeCost(whole.params - is_later * stem.params, whole.macs - is_later * stem.macs)

    @torch.no_grad()
    def _compute_features(self, _: int, images: Tensor) -> Tensor:
        stem_features = self.network.stem(self.data.normalised(images).to(self.network.widths.device))
        return self.observer.features(stem_features.cpu())


def _is_index(image: Any, n_images: int) -> bool:
    return not isinstance(image, bool) and isinstance(image, int | np.integer) and bool(0 <= image < n_images)
