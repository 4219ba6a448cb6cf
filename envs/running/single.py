"""One episode: in tensors, as a batch of one, or in NumPy where that gives the same.

For so few numbers torch spends its time on launching operations.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rlprune.envs.episodes import Episodes, first_information, information
from rlprune.envs.screen import Screen
from rlprune.envs.world import World
from rlprune.policies.observations import Observer
from rlprune.policies.one_image import Vector, observe_one
from rlprune.profiles.cost import ComputeCost
from rlprune.profiles.latency import Latency

Begun = tuple[Vector, dict[str, Any]]
"""Observation and info."""
Stepped = tuple[Vector, float, bool, dict[str, Any]]
"""Observation, reward, whether the episode is over, info."""


class Single(Protocol):
    """One episode after the other."""

    @property
    def passes(self) -> int:
        """Made so far in this episode; 0 before the first one."""

    def begin(self, image: int, penalty: float) -> Begun:
        """Begin an episode."""

    def step(self, action: Any) -> Stepped:
        """Make a step in it."""


def single(world: World, screen: Screen) -> Single:
    """The way of running single episodes that suits a world.

    Args:
        world: images, network and rules.
        screen: what shows them.
    """
    own = getattr(world.rules, "reward", None) is not None or getattr(world.observer, "own", None) is not None
    if screen.mode is None and world.actions.kind == "profiles" and type(world.observer) is Observer and not own:
        return NumpyEpisode(world)
    return TensorEpisode(world, screen)


class TensorEpisode:
    """An episode as a batch of one.

    Args:
        world: images, network and rules.
        screen: what shows it.
    """

    def __init__(self, world: World, screen: Screen) -> None:
        self._world = world
        self._screen = screen
        self._episode: Episodes | None = None

    @property
    def passes(self) -> int:
        """Made so far in this episode; 0 before the first one."""
        return 0 if self._episode is None else int(self._episode.passes)

    def begin(self, image: int, penalty: float) -> Begun:
        """Begin an episode."""
        self._episode = self._world.begin(torch.tensor([image]), torch.tensor([penalty]))
        self._screen.begin(self._episode)
        self._screen.refresh()
        return self._world.observe(self._episode)[0], first_information(self._world, self._episode)[0]

    def step(self, action: Any) -> Stepped:
        """Make a step in it.

        Raises:
            LevelsError: an action of another type or shape, or outside the action space.
        """
        assert self._episode is not None
        outcome = self._world.step(self._episode, self._world.actions.one(action))
        self._screen.follow(self._episode, outcome)
        self._screen.refresh()
        info = information(self._world, self._episode, outcome)[0]
        return self._world.observe(self._episode)[0], float(outcome.rewards[0]), bool(outcome.done[0]), info


class NumpyEpisode:
    """An episode over profiles, with the usual observation and reward: what `World.step` does, number by number.

    Args:
        world: images, network and rules.
    """

    def __init__(self, world: World) -> None:
        codebook = world.actions.codebook
        assert codebook is not None
        self._world = world
        self._labels = world.data.labels.numpy()
        self._prices = _Prices(world)
        self._repeats = (codebook[:, None] == codebook).all(2).tolist()
        self._ratios = np.array(world.network.keep_ratios, np.float32)[codebook.numpy()]
        self._accepted = np.full(codebook.shape[1], np.nan, np.float32)
        combine = world.rules.combine
        self._before = np.float32(combine / (combine + 1))
        self.passes = 0
        self._image = 0
        self._penalty = np.float32(0)
        self._profile = 0
        self._macs = 0
        self._logits = np.zeros(len(world.data.classes), np.float32)

    def begin(self, image: int, penalty: float) -> Begun:
        """Begin an episode."""
        self.passes = 0
        self._image = image
        self._penalty = np.float32(penalty)
        self._macs = self._prices.stem_macs
        return self._observe(), {"image": image, "label": int(self._labels[image])}

    def step(self, action: Any) -> Stepped:
        """Make a step in it.

        Raises:
            LevelsError: an action of another type or shape, or outside the action space.
        """
        actions = self._world.actions
        chosen = action if type(action) is int and 0 <= action < actions.n_choices[0] else int(actions.one(action))
        accepts = chosen == len(self._repeats)
        profile = 0 if accepts else chosen
        accepts = self.passes > 0 and (accepts or self._repeats[profile][self._profile])
        params, macs, price = self._prices.of(None if accepts else profile, later=self.passes > 0)
        if not accepts:
            self._run(profile)
        done = accepts or self.passes >= actions.max_passes
        prediction, label = int(self._logits.argmax()), int(self._labels[self._image])
        correct = prediction == label
        gain = np.float32(self._gain(correct, label) if done else 0)
        info: dict[str, Any] = {
            "image": self._image,
            "label": label,
            "prediction": prediction,
            "accuracy": float(correct),
            "active_params": params,
            "active_macs": macs,
            "passes": self.passes,
            "keep_ratios": (self._accepted if accepts else self._ratios[profile]).copy(),
        }
        if done:
            info["is_success"] = correct
        return self._observe(), float(gain - self._penalty * price), done, info

    def _run(self, profile: int) -> None:
        """One more pass."""
        logits = self._world.logit_cache.of_one(self._image, profile)
        if self.passes and self._before:
            logits = _lerp(logits, self._logits, self._before)
        self._logits = logits
        self._macs += self._prices.bodies[profile]
        self._profile = profile
        self.passes += 1

    def _gain(self, correct: bool, label: int) -> int:
        """What a prediction is worth if it is the last."""
        if not self._world.rules.control_variate:
            return int(correct)
        whole = self._world.logit_cache.of_one(self._image, None)
        return int(correct) - int(int(whole.argmax()) == label)

    def _observe(self) -> Vector:
        """What the agent sees now."""
        world = self._world
        features = world._features.row(0, self._image)
        spent = self._macs / self._prices.dense_macs
        return observe_one(world.observer, features, self._logits, self.passes, spent, float(self._penalty))


class _Prices:
    """What steps cost, in numbers.

    Attributes:
        stem_macs: of the stem.
        dense_macs: of the dense network.
        bodies: MACs of each profile without the stem.

    Args:
        world: whose actions are profiles.
    """

    def __init__(self, world: World) -> None:
        cost, rules, codebook = world.cost, world.rules, world.actions.codebook
        assert codebook is not None
        whole = cost.of(codebook)
        self.stem_macs, self.dense_macs = int(cost.stem.macs), int(cost.dense.macs)
        self.bodies: list[int] = (whole.macs - cost.stem.macs).tolist()
        self._stem, self._dense, self._decision = _pair(cost.stem), _pair(cost.dense), rules.policy_cost
        self._whole = list(zip(whole.params.tolist(), whole.macs.tolist(), strict=True))
        self._latency = rules.cost if isinstance(rules.cost, Latency) else None
        self._times = [] if self._latency is None else self._latency.predict_ms(cost, codebook).tolist()
        self._paid = int(rules.cost == "macs")

    def of(self, profile: int | None, *, later: bool) -> tuple[float, float, np.float32]:
        """Active parameters and MACs over the dense network's, and the price, of a step.

        Args:
            profile: what runs; None if the prediction is accepted.
            later: whether the stem has run already.
        """
        shares = [np.float32(self._amount(kind, profile, later)) / np.float32(self._dense[kind]) for kind in (0, 1)]
        price = shares[self._paid] if self._latency is None else self._time(self._latency, profile, later)
        return float(shares[0]), float(shares[1]), price

    def _amount(self, kind: int, profile: int | None, later: bool) -> int:
        amount = self._decision[kind]
        return amount if profile is None else amount + self._whole[profile][kind] - later * self._stem[kind]

    def _time(self, latency: Latency, profile: int | None, later: bool) -> np.float32:
        time = latency.decision
        if profile is not None:
            time += self._times[profile] - later * latency.stem
        return np.float32(time / latency.dense)


def _pair(cost: ComputeCost) -> tuple[int, int]:
    return int(cost.params), int(cost.macs)


def _lerp(start: Vector, end: Vector, weight: np.float32) -> Vector:
    """`torch.lerp`, bit by bit."""
    difference = end - start
    found: NDArray[np.float32] = start + weight * difference if weight < 0.5 else end - difference * (1 - weight)
    return found
