"""The search for cascades: many margins after each step of each choice of profiles, on logits that are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from rlprune.policies.observations import Observer

MAX_STEPS = 3
"""The most profiles of a cascade."""
_N_MARGINS = 96
"""How many margins are tried for each step of each choice of profiles."""


class Found(NamedTuple):
    """A cascade, as the first attributes of `rlprune.baselines.cascade.Cascade` describe it."""

    steps: tuple[int, ...]
    margins: tuple[float, ...]
    accuracy: float
    price: float


def margins_of(logits: Tensor) -> Tensor:
    """The difference of the two largest logits of each image, (N, classes) -> float64 (N,); 0 for a single class."""
    top = logits.double().topk(min(2, logits.shape[1]), dim=1).values
    return top[:, 0] - top[:, -1]


class Search:
    """Tries cascades on the logits that each profile gave once.

    Args:
        codebook_logits: float32 (K, N, classes).
        labels: int64 (N,).
        bodies: price of each profile, float64 (K,).
        stem: price that each image pays once.
        combine: weight of the logits before a pass.
    """

    def __init__(self, codebook_logits: Tensor, labels: Tensor, bodies: Tensor, stem: float, combine: float) -> None:
        self._logits = codebook_logits
        self._labels = labels
        self._bodies = bodies
        self._stem = stem
        self._combine = combine
        self._known: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def best(self, max_steps: int) -> Iterator[Found]:
        """Of every choice of profiles, the cascades that are more accurate than every cheaper one."""
        for n_steps in range(1, max_steps + 1):
            for steps in combinations(range(len(self._logits)), n_steps):
                yield from self._best_margins(steps)

    def _best_margins(self, steps: tuple[int, ...]) -> Iterator[Found]:
        """Of all margins for some steps, those that are worth their price."""
        passes = [self._after(steps[: turn + 1]) for turn in range(len(steps))]
        n_right = passes[0][0].sum()
        price = self._stem + self._bodies[steps[0]]
        places = torch.zeros_like(passes[0][0], dtype=torch.int64)  # in the grid of margins tried so far, of each image
        shape: tuple[int, ...] = ()
        for (before, tried, place), (after, _, _), step in zip(passes, passes[1:], steps[1:], strict=False):
            shape = (*shape, len(tried) + 1)
            places = places * shape[-1] + place
            n_right = n_right[..., None] + _of_those_who_go_on(places, after - before, shape)
            n_on = _of_those_who_go_on(places, torch.ones_like(after), shape)
            price = price[..., None] + n_on / len(self._labels) * self._bodies[step]
        for index in _worth_their_price(price.flatten(), n_right.flatten()):
            where = torch.unravel_index(torch.tensor(index), price.shape) if shape else ()
            yield Found(
                steps,
                tuple(float(one[1][int(i)]) for one, i in zip(passes, where, strict=False)),
                float(n_right.flatten()[index]) / len(self._labels),
                float(price.flatten()[index]),
            )

    def _after(self, steps: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """After some steps: who is right, float64 (N,); margins to try, (M,); how many of those each image reaches."""
        steps = steps if self._combine else steps[-1:]
        if steps not in self._known:
            observer = Observer.without_features(self._logits.shape[2], len(steps), self._combine)
            logits = observer.beliefs(self._logits[list(steps)])[-1]
            margins = margins_of(logits)
            tried = _to_try(margins)
            right = (logits.argmax(1) == self._labels).double()
            self._known[steps] = right, tried, torch.searchsorted(tried, margins, right=True)
        return self._known[steps]


def _to_try(margins: Tensor) -> Tensor:
    """Margins to try, ascending, float64 (M,): as many distinct ones lie between each two; the last is above all."""
    ordered = margins.unique()
    where = torch.linspace(0, len(ordered), _N_MARGINS + 1).long()[1:-1].unique()
    where = where[where > 0]
    return torch.cat([(ordered[where - 1] + ordered[where]) / 2, ordered[-1:] + 1])


def _of_those_who_go_on(places: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """Sums over the images that go on after all steps so far, for each combination of margins.

    Args:
        places: of each image in the grid, int64 (N,): how many of the margins to try it reaches after each step. It
            goes on where the margin asked for is a later one.
        values: float64 (N,).
        shape: of the grid, one more than there are margins to try after each step.
    """
    n_places = prod(shape)
    sums = places.bincount(values, n_places).reshape(tuple(shape))
    for axis in range(len(shape)):
        sums = sums.cumsum(axis)
    return sums[tuple(slice(-1) for _ in shape)]


def _worth_their_price(prices: Tensor, n_right: Tensor) -> list[int]:
    """Which have more right than every one that is not dearer, (P,) each; cheapest first."""
    order = n_right.argsort(descending=True, stable=True)
    order = order[prices[order].argsort(stable=True)]
    most = n_right[order].cummax(0).values
    better = torch.cat([torch.ones(1, dtype=torch.bool), most[1:] > most[:-1]])
    found: list[int] = order[better].tolist()
    return found
