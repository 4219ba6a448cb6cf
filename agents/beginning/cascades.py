"""The best cascade of a codebook for a penalty or a range of them, and how it is written into an agent's actor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from rlprune.baselines.cascade import Cascade, best_cascades
from rlprune.baselines.cascade_network import ACTIVATION, cascade_layers, n_units
from rlprune.envs.logit_cache import LogitCache
from rlprune.envs.sweep import N_PENALTIES, Decide, image_rewards, measure_budgets
from rlprune.envs.world import World
from rlprune.policies.linear import Layer
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy

BEGUN_AS = "begun_as"
"""What notes call the cascade."""
_TILTS = tuple(-step / 20 for step in range(1, 21))
"""How much the margin asked for may rise over a range, on the scale of observations, beside staying: it falls."""
_MOST_NUMBERS = 2**28
"""Logits that cascades are searched by at once; where there are more, by those of the first images."""


@dataclass(frozen=True)
class Beginning:
    """A cascade for one penalty or a range.

    Attributes:
        cascade: which profiles run in turn, and the margins asked for; those of a range's middle.
        tilt: as `rlprune.baselines.cascade_network.cascade_layers` has it.
    """

    cascade: Cascade
    tilt: float = 0.0

    def noted(self) -> dict[str, Any]:
        """It as a run's notes hold it."""
        return {"steps": list(self.cascade.steps), "margins": list(self.cascade.margins), "tilt": self.tilt}

    @classmethod
    def of_notes(cls, notes: Mapping[str, Any]) -> Beginning:
        """What `noted` gave."""
        return cls(Cascade(tuple(notes["steps"]), tuple(notes["margins"])), float(notes["tilt"]))

    def layers(self, world: World, widths: Sequence[int]) -> list[Layer]:
        """It as an actor's layers, with hidden layers of these widths."""
        return cascade_layers(self.cascade, world.observer, world.actions, widths, self.tilt)

    def decide(self, world: World) -> Decide:
        """How it decides: observations float32 (n, D) -> actions (n,)."""
        (weight, bias), (last_weight, last_bias) = self.layers(world, self._widths(world))

        def decide(seen: NDArray[Any]) -> NDArray[Any]:
            units = (torch.from_numpy(seen) @ weight.T + bias).tanh()
            chosen: NDArray[Any] = (units @ last_weight.T + last_bias).argmax(1).numpy()
            return chosen

        return decide

    def policy(self, world: World) -> Policy:
        """It as a policy with as few units as will do, whose decisions are those of an agent that begins so."""
        ranged = world.observer.penalties is not None
        return Policy.from_linear(
            self.layers(world, self._widths(world)),
            ACTIVATION,
            observer=world.observer,
            actions=world.actions,
            budgets=measure_budgets(world, self.decide(world)) if ranged else None,
        )

    def _widths(self, world: World) -> tuple[int]:
        return (n_units(world.observer.max_passes),)


def best_beginning(world: World) -> Beginning:
    """The cascade of a world's codebook that earns most on its images.

    It is one of `rlprune.baselines.best_cascades`. Where there is a range of penalties, it is the best one at the
    range's middle, and what it asks for falls towards the highest penalty as much as earns most over the whole range.

    Args:
        world: profiles are chosen in it, and images have several passes.
    """
    best = max(map(Beginning, _cascades(world)), key=lambda each: _earned(world, each, 1))
    if not isinstance(world.penalty, PenaltyRange) or not best.cascade.margins:
        return best
    tilted = [best, *(replace(best, tilt=tilt) for tilt in _TILTS)]
    return max(tilted, key=lambda each: _earned(world, each, N_PENALTIES))


_found: WeakKeyDictionary[LogitCache, dict[tuple[float, int], list[Cascade]]] = WeakKeyDictionary()
"""Cascades searched before: the same for all worlds that share what a network says of their images."""


def _cascades(world: World) -> list[Cascade]:
    """The best cascades of a world's codebook, whatever the penalty."""
    combine, max_passes = world.observer.combine, world.actions.max_passes
    known = _found.setdefault(world.logit_cache, {})
    if (combine, max_passes) not in known:
        codebook = world.actions.codebook
        assert codebook is not None
        n_images = max(1, min(len(world.data), _MOST_NUMBERS // (len(codebook) * world.observer.n_classes)))
        logits, labels = world.profile_logits(n_images), world.data.labels[:n_images]
        known[combine, max_passes] = best_cascades(world.network, codebook, logits, labels, combine, max_passes)
    return known[combine, max_passes]


def _earned(world: World, beginning: Beginning, n_penalties: int) -> float:
    """What a cascade earns per image; over a range, on average over some of its penalties."""
    return float(image_rewards(world, beginning.decide(world), n_penalties).mean())


@torch.no_grad()
def begin_as(agent: BaseAlgorithm, beginning: Beginning, world: World) -> None:
    """Let an agent decide as a cascade does if nothing is left to chance, and explore most where that is unsure.

    The first units of every hidden layer become the cascade's. The others stay as they are, with outputs of zero
    weight; the value network stays, too.

    Args:
        agent: a new one, whose actor has hidden layers with Tanh.
        beginning: the cascade.
        world: what the agent is trained on.
    """
    policy = cast(ActorCriticPolicy, agent.policy)
    hidden = [layer for layer in policy.mlp_extractor.policy_net if isinstance(layer, nn.Linear)]
    *first, last = beginning.layers(world, [layer.out_features for layer in hidden])
    n = n_units(world.observer.max_passes)
    for layer, (weight, bias) in zip(hidden, first, strict=True):
        layer.weight[:n] = weight[:n].to(layer.weight)
        layer.bias[:n] = bias[:n].to(layer.bias)
    output = cast(nn.Linear, policy.action_net)
    output.weight.copy_(last[0])
    output.bias.copy_(last[1])
