"""Cascades, which learn nothing: a cheap profile first, and wider ones where the margin between logits is small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.policy import Policy
from rlprune.policies.protocol import MARGIN
from rlprune.profiles.cost import Cost

_N_MARGINS = 64
"""How many margins are tried for each choice of profiles."""
_MAX_STEPS = 3
_NEVER = -1e6
"""Bias of profiles that the cascade does not run."""
_TURN_WEIGHT = 10.0
"""How strongly the number of passes favours the profile whose turn it is."""


@dataclass(frozen=True)
class Cascade:
    """Profiles in the order in which images run them, and the confidence that ends a cascade.

    Attributes:
        steps: indices into a codebook, one to three, ascending.
        margin: between the two largest logits; an image with a smaller margin runs the next profile.
        accuracy: on the images that the cascade was chosen with, in [0, 1].
        price: mean share of the dense network's MACs on these images, without the cascade's own decisions.
    """

    steps: tuple[int, ...]
    margin: float
    accuracy: float = float("nan")
    price: float = float("nan")


def best_cascades(elastic: ElasticModule, codebook: Tensor, codebook_logits: Tensor, labels: Tensor) -> list[Cascade]:
    """The cascades of a codebook that are more accurate than every cheaper one, cheapest first.

    Args:
        elastic: the network.
        codebook: its profiles, int64 (K, G), cheapest first.
        codebook_logits: of each profile for images that the network was not trained on, float32 (K, N, classes).
        labels: of those images, int64 (N,).
    """
    cost = Cost(elastic)
    bodies = ((cost.of(codebook).macs - cost.stem.macs) / cost.dense.macs).double()
    stem = float(cost.stem.macs / cost.dense.macs)
    cascades = _measured_cascades(codebook_logits, labels, bodies, stem)
    best: list[Cascade] = []
    for cascade in sorted(cascades, key=lambda cascade: (cascade.price, -cascade.accuracy)):
        if not best or cascade.accuracy > best[-1].accuracy:
            best.append(cascade)
    return best


def _measured_cascades(codebook_logits: Tensor, labels: Tensor, bodies: Tensor, stem: float) -> Iterator[Cascade]:
    """Every cascade, each with several margins, with its accuracy and price."""
    top = codebook_logits.topk(2, dim=2).values
    margins = top[..., 0] - top[..., 1]
    right = (codebook_logits.argmax(2) == labels).double()
    for n_steps in range(1, _MAX_STEPS + 1):
        for steps in combinations(range(len(codebook_logits)), n_steps):
            tried = margins[steps[0]].quantile(torch.linspace(0, 1, _N_MARGINS)) if n_steps > 1 else torch.zeros(1)
            for margin in tried.unique().tolist():
                yield _measure(steps, margin, margins, right, bodies, stem)


def _measure(
    steps: tuple[int, ...], margin: float, margins: Tensor, right: Tensor, bodies: Tensor, stem: float
) -> Cascade:
    """A cascade with its accuracy and price, from each profile's margins and correctness, both (K, N)."""
    running = torch.ones_like(right[0], dtype=torch.bool)
    correct = right[steps[0]]
    price = torch.full_like(right[0], stem)
    for step in steps:
        correct = torch.where(running, right[step], correct)
        price = price + bodies[step] * running
        running = running & (margins[step] < margin)
    return Cascade(steps, margin, float(correct.mean()), float(price.mean()))


def cascade_policy(elastic: ElasticModule, codebook: Tensor, cascade: Cascade) -> Policy:
    """Build the policy that decides as a cascade does; it is run, stored and exported like a learnt one.

    Its single layer chooses the profile whose turn it is by the number of passes, and accepts by the observed margin.

    Args:
        elastic: the network.
        codebook: its profiles, int64 (K, G), cheapest first.
        cascade: the cascade.

    Raises:
        RLPruneError: the steps are not one to three different profiles of the codebook, or the margin is below 0.
    """
    steps = cascade.steps
    n = len(steps)
    if not 1 <= n <= _MAX_STEPS or len(set(steps)) < n or not set(steps) <= set(range(len(codebook))):
        raise RLPruneError(
            f"steps={steps}: one to {_MAX_STEPS} different profiles from 0 to {len(codebook) - 1} are needed"
        )
    if not cascade.margin >= 0:
        raise RLPruneError(f"margin={cascade.margin}: 0 or more is needed")
    codebook = elastic.check_codebook(codebook)
    observer = Observer(torch.zeros(0), torch.ones(0), elastic.n_classes, n, 0)
    actions = Actions.from_network(elastic, "profiles", codebook, n)
    policy = Policy((observer.size, actions.n_outputs), "Tanh", observer, actions, codebook)
    layer = policy.network[0]
    assert isinstance(layer, nn.Linear)
    margin_entry = observer.n_beliefs + 1  # of an observation
    passes_entry = observer.n_beliefs + 3
    turns = [turn / n for turn in range(n)]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(_NEVER)
        for step, turn in zip(steps, turns, strict=True):  # falls with the squared distance from the turn
            layer.weight[step, passes_entry] = 2 * _TURN_WEIGHT * turn
            layer.bias[step] = -_TURN_WEIGHT * turn**2
        if n > 1:
            first_later = turns[
                1
            ]  # at later turns accepting scores as the profile whose turn it is, but for the margin
            last_later = turns[2] if n > 2 else 0.0
            layer.weight[-1, margin_entry] = 1.0
            layer.weight[-1, passes_entry] = _TURN_WEIGHT * (first_later + last_later)
            layer.bias[-1] = -cascade.margin / (cascade.margin + MARGIN) - _TURN_WEIGHT * first_later * last_later
    return policy.eval()


def within(cascades: Sequence[Cascade], budget: float) -> Cascade:
    """The most accurate cascade within a budget.

    Args:
        cascades: one or more, measured.
        budget: mean share of the dense network's MACs that the cascade may cost.

    Raises:
        RLPruneError: every cascade costs more.
    """
    affordable = [cascade for cascade in cascades if cascade.price <= budget]
    if not affordable:
        least = min(cascade.price for cascade in cascades)
        raise RLPruneError(f"budget {budget:g} is below the cheapest cascade, which costs {least:.3f}")
    return max(affordable, key=lambda cascade: cascade.accuracy)
