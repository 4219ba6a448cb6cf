"""A cascade as the layers of a small perceptron, which an agent can begin with and learn on from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from rlprune.baselines.cascade import Cascade
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.linear import Layer
from rlprune.policies.observations import Observer
from rlprune.policies.protocol import MARGIN

ACTIVATION = "Tanh"
"""What is between the layers: it keeps signs, and large numbers become exactly 1 or -1."""
_SURE = 40.0
"""Weight of what has to become 1 or -1."""
_STEEPNESS = 10.0
"""How fast the first layer's unit turns with the margin, on the scale of observations, from going on to accepting."""
_ACCEPTING = 4.0
"""How much accepting may gain or lose by the margin: where it is clear, the other choice is made once in 50 times."""
_RARELY = 5.0
"""By how much the profiles whose turn it is not are behind: an agent that explores tries each once in 150 times."""


def n_units(max_passes: int) -> int:
    """How many units of a hidden layer a cascade takes: one for the margin, and one for each pass after the first."""
    return max_passes


def cascade_layers(
    cascade: Cascade, observer: Observer, actions: Actions, widths: Sequence[int], tilt: float = 0.0
) -> list[Layer]:
    """Linear layers, with `ACTIVATION` between them, whose largest output is what a cascade does.

    The first units of each hidden layer say whether the margin is large enough, and how many passes were made; all
    other units are zero, and have no say. Signs pass through all layers as they are, so decisions are exact. Outputs
    are bounded, so that an agent that draws by them explores: most where the margin is close to the one asked for.

    Args:
        cascade: which profiles run in turn, and the margins asked for.
        observer: builds the observations, the default ones.
        actions: over the profiles of a codebook, with as many passes as the cascade has steps, or more.
        widths: of the hidden layers, one or more, each of `n_units` or more.
        tilt: where there is a range of penalties: by how much the margin asked for, as observations show it, rises from
            the lowest penalty to the highest; in the middle it is the cascade's.

    Raises:
        RLPruneError: the observer, the actions or the widths cannot have such a cascade.
    """
    n_passes = observer.max_passes
    units = n_units(n_passes)
    if observer.own is not None or actions.kind != "profiles" or not 1 <= len(cascade.steps) <= n_passes:
        raise RLPruneError(
            f"a cascade of {len(cascade.steps)} steps needs the default observation, profiles and as many passes"
        )
    if not widths or min(widths) < units:
        raise RLPruneError(f"widths={tuple(widths)}: a cascade needs hidden layers of {units} units or more")
    layers = [_first(cascade, observer, widths[0], tilt)]
    for before, width in pairwise(widths):
        weight = torch.zeros(width, before)
        weight[0, 0] = 1.0
        for unit in range(1, units):
            weight[unit, unit] = _SURE
        layers.append((weight, torch.zeros(width)))
    return [*layers, _last(cascade, n_passes, actions.n_outputs, widths[-1])]


def _first(cascade: Cascade, observer: Observer, width: int, tilt: float) -> Layer:
    """Observations to units: the margin above the one asked for, and whether each pass after the first was made."""
    margin_entry = len(observer.mean) + observer.n_beliefs + 1
    passes_entry = margin_entry + 2
    n_passes = observer.max_passes
    weight, bias = torch.zeros(width, observer.size), torch.zeros(width)
    asked = [margin / (margin + MARGIN) for margin in cascade.margins] or [0.0]
    rise = asked[-1] - asked[0]  # from the first pass to the second; there are no more where one is asked
    weight[0, margin_entry] = _STEEPNESS
    weight[0, passes_entry] = -_STEEPNESS * rise * n_passes
    bias[0] = -_STEEPNESS * (asked[0] - rise)
    if observer.penalties is not None:
        weight[0, -1] = -_STEEPNESS * tilt
        bias[0] += _STEEPNESS * tilt / 2
    for made in range(1, n_passes):
        weight[made, passes_entry] = _SURE * n_passes
        bias[made] = -_SURE * (made - 0.5)
    return weight, bias


def _last(cascade: Cascade, n_passes: int, n_outputs: int, width: int) -> Layer:
    """Units to outputs: the profile whose turn it is scores 0, and accepting what the margin says.

    After the last step of a cascade that has fewer than there may be passes, accepting is ahead of all.
    """
    n_steps = len(cascade.steps)
    weight, bias = torch.zeros(n_outputs, width), torch.full((n_outputs,), -_RARELY)
    for turn, step in enumerate(cascade.steps):
        bias[step] = 0.0
        if turn:  # low before its turn
            weight[step, turn] += _RARELY / 2
            bias[step] -= _RARELY / 2
        if turn + 1 < n_passes:  # and after it
            weight[step, turn + 1] -= _RARELY / 2
            bias[step] -= _RARELY / 2
    if n_passes > 1:
        weight[-1, 0] = _ACCEPTING
        weight[-1, 1] = _RARELY / 2
        bias[-1] = -_RARELY / 2
        if n_steps < n_passes:
            weight[-1, n_steps] += _RARELY / 2
            bias[-1] += _RARELY / 2
    return weight, bias
