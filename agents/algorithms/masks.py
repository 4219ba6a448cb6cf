"""What agents choose when nothing is left to chance, and agents that are told which actions make no sense.

MaskablePPO never accepts before the first pass: it learns nothing of how that would be. A deployed policy is told
nothing, so it gets a unit more in every hidden layer, which lowers the output that accepts before the first pass, and
only then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.linear import ACTIVATIONS, Layer
from rlprune.policies.observations import Observer

_NO_PASS = 20.0
"""What the first of these units is given before the first pass; far below zero after it."""
_SLOPE = 2000.0
Decide = Callable[[NDArray[Any]], NDArray[Any]]
"""Observations float32 (n, D) -> actions (n,) or (n, entries)."""


def is_masked(agent: BaseAlgorithm, actions: Actions) -> bool:
    """Whether it makes a difference that an agent is told not to accept before the first pass."""
    of_contrib = type(agent.policy).__module__.startswith("sb3_contrib.common.maskable")
    return of_contrib and actions.kind == "profiles" and actions.max_passes > 1


def greedy(agent: BaseAlgorithm, actions: Actions, observer: Observer) -> Decide:
    """How an agent decides if nothing is left to chance, told what it was told in training."""
    if not is_masked(agent, actions):
        return lambda seen: agent.predict(seen, deterministic=True)[0]
    entry = passes_entry(observer)

    def decide(seen: NDArray[Any]) -> NDArray[Any]:
        masks = torch.ones(len(seen), actions.n_outputs, dtype=torch.bool)
        masks[torch.as_tensor(seen)[:, entry] == 0, -1] = False
        predict: Any = agent.predict
        chosen: NDArray[Any] = predict(seen, deterministic=True, action_masks=masks.numpy())[0]
        return chosen

    return decide


def passes_entry(observer: Observer) -> int:
    """Which entry of an observation is 0 before the first pass, and only then.

    Raises:
        RLPruneError: observations are of another kind.
    """
    if type(observer) is not Observer:
        raise RLPruneError(
            f"an agent with action masks cannot be exported with observations by {type(observer).__name__}, which need "
            "not say if a pass was made; train with algorithm='ppo', or with the usual observations"
        )
    return observer.size - 1 - (observer.penalties is not None)


def never_accepting_first(layers: list[Layer], activation: str, observer: Observer) -> list[Layer]:
    """Layers that give the same outputs, but for the last one before the first pass, which is then below all others.

    Args:
        layers: of a policy over profiles; they stay as they are.
        activation: what is between them.
        observer: builds the observations.

    Raises:
        RLPruneError: there is no hidden layer.
    """
    if len(layers) < 2:
        raise RLPruneError("an agent with action masks needs a hidden layer; give hidden one width or more")
    function = ACTIVATIONS[activation]()
    low, high = _bounds(layers, function, observer)
    signal = torch.tensor([_NO_PASS, -_SLOPE])  # before the first pass, and after it
    widened = []
    for index, (weight, bias) in enumerate(layers[:-1]):
        of_unit = torch.zeros(1, weight.shape[1])
        if not index:
            of_unit[0, passes_entry(observer)] = -_SLOPE
            widened.append((torch.cat([weight, of_unit]), torch.cat([bias, signal[:1]])))
        else:
            scale = _NO_PASS if activation == "Tanh" else 1.0
            grown = torch.cat([torch.cat([weight, of_unit]), torch.zeros(len(weight) + 1, 1)], 1)
            grown[-1, -1] = scale
            signal = scale * signal
            widened.append((grown, torch.cat([bias, torch.zeros(1)])))
        signal = function(signal)
    weight, bias = layers[-1]
    before, after = signal
    column = torch.zeros(len(weight), 1)
    column[-1] = -(high.max() - low.min() + 1) / (before - after)
    lifted = bias.clone()
    lifted[-1] -= column[-1, 0] * after
    return [*widened, (torch.cat([weight, column], 1), lifted)]


def _bounds(layers: list[Layer], function: Callable[[Tensor], Tensor], observer: Observer) -> tuple[Tensor, Tensor]:
    """Numbers that no output is below or above, whatever is observed, (n_outputs,) each."""
    low, high = observer.low, observer.high
    for index, (weight, bias) in enumerate(layers):
        if index:
            low, high = function(low).minimum(function(high)) - 0.3, function(low).maximum(function(high))
        positive, negative = weight.clamp_min(0), weight.clamp_max(0)
        low, high = positive @ low + negative @ high + bias, positive @ high + negative @ low + bias
    return low, high
