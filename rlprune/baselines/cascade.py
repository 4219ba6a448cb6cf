"""Cascades, which learn nothing: a cheap profile first, and wider ones where the margin between logits is small."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rlprune.baselines.cascade_search import MAX_STEPS, Search, margins_of
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.passes import PassResult
from rlprune.policies.policy import Policy
from rlprune.policies.protocol import MARGIN
from rlprune.profiles.cost import Cost
from rlprune.utils.finite import check_whole

_NEVER = -1e6
"""Bias of profiles that the cascade does not run."""
_TURN_WEIGHT = 10.0
"""How strongly the number of passes favours the profile whose turn it is."""
_UNKNOWN = float("nan")
WEIGHTS = (0.0, 1.0)
"""Weights of the logits before a pass that a tuned cascade may choose from: the last pass alone; or two passes count
alike, and of three the last counts half."""


@dataclass(frozen=True, init=False)
class Cascade:
    """Profiles in the order in which images run them, and the confidence after each that ends a cascade.

    Attributes:
        steps: indices into a codebook, one to three, ascending.
        margins: of every step but the last: between the two largest logits so far; an image with a smaller margin runs
            the next profile.
        accuracy: on the images that the cascade was chosen with, in [0, 1].
        price: mean share of the dense network's MACs on these images, without the cascade's own decisions.
        combine: weight of the logits before a pass, as of `rlprune.policies.observations.Observer`; with 0 the last
            pass alone answers and is asked for its margin.
    """

    steps: tuple[int, ...]
    margins: tuple[float, ...]
    accuracy: float
    price: float
    combine: float

    def __init__(
        self,
        steps: Sequence[int],
        margins: float | Sequence[float] = (),
        accuracy: float = _UNKNOWN,
        price: float = _UNKNOWN,
        combine: float = 0.0,
        *,
        margin: float | None = None,
    ) -> None:
        """Take the attributes; one number for `margins`, or `margin` as it was called, is that of every step."""
        given = margins if margin is None else margin
        each = given if isinstance(given, Sequence) else (float(given),) * (len(steps) - 1)
        values = {
            "steps": tuple(steps),
            "margins": tuple(each),
            "accuracy": accuracy,
            "price": price,
            "combine": combine,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def margin(self) -> float:
        """The margin of the first step; 0 where there is but one."""
        return self.margins[0] if self.margins else 0.0

    def __str__(self) -> str:
        """The steps, with the margin below which an image goes on to the next."""
        words = [str(self.steps[0])]
        for margin, step in zip(self.margins, self.steps[1:], strict=False):
            words.append(f"> {step} below {margin:.2f}")
        return " ".join(words) + (f", logits combined by {self.combine:g}" if self.combine and self.margins else "")

    def run(self, codebook_logits: Tensor) -> PassResult:
        """What images run through, and their predictions.

        Args:
            codebook_logits: of every profile of the codebook for the images, float32 (K, N, classes).
        """
        beliefs = _observer(self, codebook_logits.shape[2]).beliefs(codebook_logits[list(self.steps)])
        goes_on = torch.ones(len(beliefs[0]), dtype=torch.bool)
        profiles = torch.full((len(goes_on), len(self.steps)), -1)
        logits = beliefs[0]
        for turn, (step, belief) in enumerate(zip(self.steps, beliefs, strict=True)):
            if turn:
                goes_on = goes_on & (margins_of(beliefs[turn - 1]) < self.margins[turn - 1])
            profiles[goes_on, turn] = step
            logits = torch.where(goes_on[:, None], belief, logits)
        return PassResult(profiles, logits)


def best_cascades(
    elastic: ElasticModule,
    codebook: Tensor,
    codebook_logits: Tensor,
    labels: Tensor,
    combine: float | Iterable[float] = 0.0,
    max_steps: int = MAX_STEPS,
) -> list[Cascade]:
    """The cascades of a codebook that are more accurate than every cheaper one, cheapest first.

    For every choice of profiles, in ascending order, many margins are tried after each step, independently of each
    other: values between each two of which lie as many distinct margins of the images.

    Args:
        elastic: the network.
        codebook: its profiles, int64 (K, G), cheapest first.
        codebook_logits: of each profile for images that the network was not trained on, float32 (K, N, classes).
        labels: of those images, int64 (N,).
        combine: the weight of the logits before a pass, or several to try.
        max_steps: the most profiles that an image may run, 1 to 3.
    """
    check_whole(max_steps=max_steps, least=1, most=MAX_STEPS)
    cost = Cost(elastic)
    bodies = ((cost.of(codebook).macs - cost.stem.macs) / cost.dense.macs).double()
    stem = float(cost.stem.macs / cost.dense.macs)
    weights = dict.fromkeys([combine] if isinstance(combine, int | float) else combine)
    found = [
        Cascade(*each, combine=float(weight) if len(each.steps) > 1 else 0.0)
        for weight in weights
        for each in Search(codebook_logits, labels, bodies, stem, float(weight)).best(max_steps)
    ]
    best: list[Cascade] = []
    for cascade in sorted(found, key=lambda cascade: (cascade.price, -cascade.accuracy)):
        if not best or cascade.accuracy > best[-1].accuracy:
            best.append(cascade)
    return best


def _observer(cascade: Cascade, n_classes: int) -> Observer:
    """What joins the predictions of a cascade's passes."""
    return Observer.without_features(n_classes, len(cascade.steps), cascade.combine)


def cascade_policy(elastic: ElasticModule, codebook: Tensor, cascade: Cascade) -> Policy:
    """Build the policy that decides as a cascade does; it is run, stored and exported like a learnt one.

    Its single layer chooses the profile whose turn it is by the number of passes, and accepts by the observed margin.

    Args:
        elastic: the network.
        codebook: its profiles, int64 (K, G), cheapest first.
        cascade: the cascade.

    Raises:
        RLPruneError: the steps are not one to three different profiles of the codebook; or there is not one margin for
            each but the last, finite and not below 0.
    """
    steps = cascade.steps
    n = len(steps)
    _check(cascade, len(codebook))
    codebook = elastic.check_codebook(codebook)
    observer = _observer(cascade, elastic.n_classes)
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
            # At later turns accepting scores as the profile whose turn it is, but for the margin.
            slope, start = _line(turns[1:], _accepting(cascade, turns))
            layer.weight[-1, margin_entry] = 1.0
            layer.weight[-1, passes_entry] = slope
            layer.bias[-1] = start
    return policy.eval()


def _check(cascade: Cascade, n_profiles: int) -> None:
    """Refuse a cascade that cannot be.

    Raises:
        RLPruneError: as `cascade_policy` says.
    """
    steps, margins = cascade.steps, cascade.margins
    n = len(steps)
    if not 1 <= n <= MAX_STEPS or len(set(steps)) < n or not set(steps) <= set(range(n_profiles)):
        raise RLPruneError(
            f"steps={steps}: one to {MAX_STEPS} different profiles from 0 to {n_profiles - 1} are needed"
        )
    if len(margins) != n - 1 or not all(0 <= margin < float("inf") for margin in margins):
        raise RLPruneError(f"margins={margins}: one for each of the {n} steps but the last, 0 or more, is needed")


def _accepting(cascade: Cascade, turns: Sequence[float]) -> list[float]:
    """What accepting must score at every turn but the first, without what the observed margin adds."""
    asked = [margin / (margin + MARGIN) for margin in cascade.margins]
    return [_TURN_WEIGHT * turn**2 - margin for turn, margin in zip(turns[1:], asked, strict=True)]


def _line(places: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Slope and start of the line through one or two points."""
    if len(places) == 1:
        return 0.0, values[0]
    ((left, right),), ((low, high),) = pairwise(places), pairwise(values)
    slope = (high - low) / (right - left)
    return slope, low - slope * left


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
