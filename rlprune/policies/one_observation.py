"""The observation of a single image, in NumPy: for so few numbers torch spends its time on launching operations."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from rlprune.policies.observations import Observer
from rlprune.policies.protocol import MARGIN

Vector = NDArray[np.float32]


def observe_one(
    observer: Observer, features: Vector, logits: Vector, n_pass: int, spent: float, penalty: float | None = None
) -> Vector:
    """Build the observation that `Observer.observe` builds.

    Args:
        observer: for which.
        features: of the image, float32 (K,).
        logits: of the prediction so far, float32 (classes,); not looked at before the first pass.
        n_pass: how many passes were made.
        spent: MACs of the passes so far over the dense network's.
        penalty: of the image; needed where there is a range, and not looked at where there is none.

    Returns:
        float32 (D,).
    """
    if observer.own is not None:
        return _observe_by_tensors(observer, features, logits, n_pass, spent, penalty)
    n_features, n_beliefs = len(features), observer.n_beliefs
    entries = np.zeros(observer.size, np.float32)
    entries[:n_features] = features
    after = n_features + n_beliefs
    if n_pass:
        descending = np.sort(logits.astype(np.float64))[::-1]
        shifted = descending - descending[0]
        exponentials = np.exp(shifted)
        total = exponentials.sum()
        probabilities = exponentials / total
        entropy = (math.log(total) - probabilities @ shifted) / math.log(max(observer.n_classes, 2))
        margin = -shifted[min(1, len(shifted) - 1)]
        entries[n_features:after] = probabilities[:n_beliefs]
        entries[after] = min(max(entropy, 0), 1)
        entries[after + 1] = margin / (margin + MARGIN)
    entries[after + 2] = min(spent / (2 * observer.max_passes), 1)
    entries[after + 3] = n_pass / observer.max_passes
    if observer.penalties is not None and penalty is not None:
        low, high = observer.penalties.low, observer.penalties.high
        entries[after + 4] = min(max(math.log(penalty / low) / math.log(high / low), 0), 1)
    return entries


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
