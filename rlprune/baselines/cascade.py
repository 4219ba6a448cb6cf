"""Deciding without learning: look cheaply first, and with wider profiles where the margin between logits is small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import MARGIN, Observer
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost

_N_MARGINS, _MAX_STEPS = 64, 3
_NEVER = -1e6
_FAR = 10.0
"""How strongly the number of passes speaks for the profile whose turn it is."""


@dataclass(frozen=True)
class Cascade:
    """Profiles in the order in which images run them, and how sure an answer has to be.

    Attributes:
        steps: indices into a codebook, one to three, ascending.
        margin: between the two largest logits; an image whose margin is below it goes on.
        accuracy: on the images that it was chosen by, in [0, 1].
        price: mean share of the dense multiply-adds there, its own decisions not counted.
    """

    steps: tuple[int, ...]
    margin: float
    accuracy: float = float("nan")
    price: float = float("nan")


def best_cascades(elastic: ElasticModule, codebook: Tensor, answers: Tensor, labels: Tensor) -> list[Cascade]:
    """Those of all cascades of a codebook that nothing cheaper is as accurate as, cheapest first.

    Args:
        elastic: the network.
        codebook: its profiles, int64 (K, G), cheapest first.
        answers: what each says of images that the network has not learnt from, float32 (K, N, classes).
        labels: of those images, int64 (N,).
    """
    cost = Cost(elastic)
    bodies = ((cost.of(codebook).macs - cost.stem.macs) / cost.dense.macs).double()
    stem = float(cost.stem.macs / cost.dense.macs)
    best: list[Cascade] = []
    for one in sorted(_all(answers, labels, bodies, stem), key=lambda one: (one.price, -one.accuracy)):
        if not best or one.accuracy > best[-1].accuracy:
            best.append(one)
    return best


def _all(answers: Tensor, labels: Tensor, bodies: Tensor, stem: float) -> Iterator[Cascade]:
    """Every cascade, each with several margins, measured."""
    top = answers.topk(2, dim=2).values
    margins, right = top[..., 0] - top[..., 1], (answers.argmax(2) == labels).double()
    for n_steps in range(1, _MAX_STEPS + 1):
        for steps in combinations(range(len(answers)), n_steps):
            tried = margins[steps[0]].quantile(torch.linspace(0, 1, _N_MARGINS)) if n_steps > 1 else torch.zeros(1)
            for margin in tried.unique().tolist():
                going = torch.ones(len(labels), dtype=torch.bool)
                correct, price = right[steps[0]], torch.full_like(right[0], stem)
                for step in steps:
                    correct = torch.where(going, right[step], correct)
                    price = price + bodies[step] * going
                    going = going & (margins[step] < margin)
                yield Cascade(steps, margin, float(correct.mean()), float(price.mean()))


def cascade_policy(elastic: ElasticModule, codebook: Tensor, cascade: Cascade) -> Policy:
    """A cascade as a policy, which runs, is stored, exported and measured like a learnt one.

    Its single layer picks the profile whose turn it is, by the passes made, and accepts by the margin that is observed.

    Raises:
        RLPruneError: the steps are not one to three different profiles of the codebook, or the margin is below 0.
    """
    steps, n = cascade.steps, len(cascade.steps)
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
    seen_margin, passes = observer.n_beliefs + 1, observer.n_beliefs + 3  # entries of an observation
    turns = [turn / n for turn in range(n)]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(_NEVER)
        for step, turn in zip(steps, turns, strict=True):  # falls with the squared distance from the turn
            layer.weight[step, passes], layer.bias[step] = 2 * _FAR * turn, -_FAR * turn**2
        if n > 1:
            later = (*turns[1:], 0.0)[:2]  # at these the profile whose turn it is has what follows, the margin apart
            layer.weight[-1, seen_margin], layer.weight[-1, passes] = 1.0, _FAR * sum(later)
            layer.bias[-1] = -cascade.margin / (cascade.margin + MARGIN) - _FAR * later[0] * later[1]
    return policy.eval()


def within(cascades: Sequence[Cascade], budget: float) -> Cascade:
    """The most accurate one that costs no more than a share of the dense multiply-adds.

    Raises:
        RLPruneError: none is so cheap.
    """
    cheap = [one for one in cascades if one.price <= budget]
    if not cheap:
        least = min(one.price for one in cascades)
        raise RLPruneError(f"budget {budget:g} is below the cheapest cascade, which costs {least:.3f}")
    return max(cheap, key=lambda one: one.accuracy)
