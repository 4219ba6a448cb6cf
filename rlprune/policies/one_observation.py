"""The observation of a single image, in NumPy: for so few numbers torch spends its time on launching operations."""

from __future__ import annotations

import math
import operator

import numpy as np
import torch
from numpy.typing import NDArray

from rlprune.policies.observations import Observer
from rlprune.policies.protocol import MARGIN

Vector = NDArray[np.float32]
_FEW = 16
"""Classes up to which Python is faster than NumPy."""


def observe_one(
    observer: Observer,
    features: Vector,
    logits: Vector,
    n_pass: int,
    spent: float,
    penalty: float | None = None,
    *,
    margin_only: bool = False,
) -> Vector:
    """Build the observation that `Observer.observe` builds.

    Args:
        observer: for which.
        features: of the image, float32 (K,).
        logits: of the prediction so far, float32 (classes,); not looked at before the first pass.
        n_pass: how many passes were made.
        spent: MACs of the passes so far over the dense network's.
        penalty: of the image; needed where there is a range, and not looked at where there is none.
        margin_only: leave zeros where class probabilities and their entropy would be.

    Returns:
        float32 (D,).
    """
    if observer.own is not None:
        return _observe_by_tensors(observer, features, logits, n_pass, spent, penalty)
    n_features = len(features)
    belief = [0.0] * (observer.n_beliefs + 2)
    if n_pass:
        belief = [*belief[1:], _margin(logits)] if margin_only else _belief(logits, observer.n_beliefs)
    history = [min(spent / (2 * observer.max_passes), 1), n_pass / observer.max_passes]
    if observer.penalties is not None and penalty is not None:
        low, high = observer.penalties.low, observer.penalties.high
        history.append(min(max(math.log(penalty / low) / math.log(high / low), 0), 1))
    entries = np.zeros(observer.size, np.float32)
    entries[:n_features] = features
    after = n_features + len(belief) + len(history)
    entries[n_features:after] = belief + history
    return entries


def _belief(logits: Vector, n_beliefs: int) -> list[float]:
    """The largest probabilities, descending, entropy and margin of a prediction."""
    total, shifted, exponentials, product = (_few if len(logits) <= _FEW else _many)(logits, max(n_beliefs, 2))
    entropy = (math.log(total) - product / total) / math.log(max(len(logits), 2))
    margin = -shifted[min(1, len(shifted) - 1)]
    probabilities = [value / total for value in exponentials[:n_beliefs]]
    return [*probabilities, min(max(entropy, 0.0), 1.0), margin / (margin + MARGIN)]


def _margin(logits: Vector) -> float:
    """The margin between the two largest logits as it is observed; 0 where there is one class."""
    largest = np.partition(logits, -2)[-2:] if len(logits) > _FEW else sorted(logits.tolist())[-2:]
    margin = float(largest[-1]) - float(largest[0])
    return margin / (margin + MARGIN)


def _few(logits: Vector, _: int) -> tuple[float, list[float], list[float], float]:
    """Sum of exponentials, largest logits less the first of them, their exponentials, and the sum of their products.

    In Python, as NumPy takes longer to begin with a dozen numbers than Python to end.
    """
    descending = sorted(logits.tolist(), reverse=True)
    shifted = [value - descending[0] for value in descending]
    exponentials = [math.exp(value) for value in shifted]
    product = sum(map(operator.mul, exponentials, shifted))
    return sum(exponentials), shifted, exponentials, product


def _many(logits: Vector, n_largest: int) -> tuple[float, list[float], list[float], float]:
    """The same of many classes."""
    descending = np.sort(logits.astype(np.float64))[::-1]
    shifted = descending - descending[0]
    exponentials = np.exp(shifted)
    largest = shifted[:n_largest].tolist(), exponentials[:n_largest].tolist()
    return float(exponentials.sum()), *largest, float(exponentials @ shifted)


def _observe_by_tensors(
    observer: Observer, features: Vector, logits: Vector, n_pass: int, spent: float, penalty: float | None
) -> Vector:
    """The same where the observation is the user's own."""
    with torch.autocast("cpu", enabled=False):
        given = (torch.from_numpy(features)[None], torch.from_numpy(logits)[None])
        place = None if penalty is None else torch.tensor([penalty])
        seen = observer.observe(*given, torch.tensor([n_pass]), torch.tensor([spent]), place)
    found: Vector = seen.numpy()[0]
    return found
