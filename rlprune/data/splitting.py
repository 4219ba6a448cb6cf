"""Which rows of the images belong to the network, the policy, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rlprune.data.decoding import Source
from rlprune.errors import DataError

SPLIT_RULE = 2
"""How images are split now. Rule 1, of networks whose notes name none, leaves a source's own validation split out where
it has a test split, and lets chance decide which classes a part has."""


@dataclass(frozen=True)
class Division:
    """Rows of an array, in the order network, policy, validation, test.

    Attributes:
        order: for each row the record that it holds, int64 (N,).
        bounds: where each of the four parts begins, and where the last one ends; five ascending row numbers.
        fixed: the first row of what is the source's own, which nothing is exchanged with.
    """

    order: NDArray[np.int64]
    bounds: tuple[int, int, int, int, int]
    fixed: int

    @property
    def slices(self) -> tuple[slice, slice, slice, slice]:
        """The rows of each part."""
        network, policy, validation, test = (slice(start, stop) for start, stop in pairwise(self.bounds))
        return network, policy, validation, test


def divide(where: str, found: Source, seed: int, shares: tuple[float, float, float], test_share: float) -> Division:
    """Shuffle what is to learn from, and divide it; the source's own parts for validation and testing stay whole.

    Raises:
        DataError: a part would be empty.
    """
    shuffled = np.random.default_rng(seed).permutation(found.n_train)
    n_set_aside = 0 if found.n_test else round(found.n_train * test_share)
    n_rest = found.n_train - n_set_aside
    own_test = np.arange(found.n_train, found.n_train + found.n_test)
    own_validation = np.arange(found.n_train + found.n_test, found.n_train + found.n_test + found.n_validation)
    order = np.concatenate((shuffled[n_set_aside:], own_validation, own_test, shuffled[:n_set_aside]))
    if found.n_validation:
        network_share = shares[0] / (shares[0] + shares[1])
        bounds = (0, round(network_share * n_rest), n_rest, n_rest + found.n_validation, len(order))
    else:
        bounds = (0, round(shares[0] * n_rest), round((shares[0] + shares[1]) * n_rest), n_rest, len(order))
    sizes = np.diff(bounds)
    if sizes.min() < 1:
        raise DataError(
            f"{where} has {bounds[-1]} images, too few to split: {' + '.join(map(str, sizes))} for network, policy, "
            "validation and test; each needs at least one: add images or change the shares"
        )
    fixed = n_rest if found.n_validation or found.n_test else len(order)
    return Division(order, bounds, fixed)


def exchanges(division: Division, labels: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs of rows to exchange, one after the other, so that no class is missing where it could be.

    A class of two images or more has one in the test set, if that was set aside, and one outside of it; then one among
    the network's. What is exchanged for it is of the class that the part has most of. Where chance has left no class
    out, there are none. Those with the test set do not depend on the shares.

    Args:
        division: the rows.
        labels: of each row, int64 (N,).
    """
    labels = labels.copy()
    network, _, _, test = division.slices
    rest = slice(0, min(division.bounds[3], division.fixed))
    found: list[tuple[int, int]] = []
    if division.fixed == len(labels):
        found += _reach(labels, rest, test, 1)
        found += _reach(labels, test, rest, 2)
    found += _reach(labels, network, slice(network.stop, rest.stop), 1)
    return found


def _reach(labels: NDArray[np.int64], part: slice, others: slice, at_least: int) -> list[tuple[int, int]]:
    """Bring each class that a part lacks into it from the others, where these have enough of it; changes the labels."""
    pairs: list[tuple[int, int]] = []
    n_classes = int(labels.max()) + 1
    here = np.bincount(labels[part], minlength=n_classes)
    there = np.bincount(labels[others], minlength=n_classes)
    for label in np.flatnonzero((here == 0) & (there >= at_least)):
        plenty = int(here.argmax())
        if here[plenty] < 2:
            break
        given = part.start + int(np.flatnonzero(labels[part] == plenty)[-1])
        taken = others.start + int(np.flatnonzero(labels[others] == label)[0])
        labels[[given, taken]] = labels[[taken, given]]
        here[plenty] -= 1
        here[label] += 1
        pairs.append((given, taken))
    return pairs
