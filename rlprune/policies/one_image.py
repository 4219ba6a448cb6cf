"""Runs a policy on a single image, in NumPy: for so few numbers torch spends its time on launching operations."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlprune.policies.folded import FoldedPolicy
from rlprune.policies.observations import Observer
from rlprune.policies.passes import CostBreakdown, Limit, PassResult, Run
from rlprune.policies.policy import Policy
from rlprune.policies.protocol import MARGIN

Vector = NDArray[np.float32]
_FEW = 16
"""Classes up to which Python is faster than NumPy."""
_FUNCTIONS: dict[str, Callable[[Vector], Vector]] = {
    "Tanh": lambda x: np.tanh(x, out=x),
    "ReLU": lambda x: np.maximum(x, 0, out=x),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "SiLU": lambda x: x * (1 + np.tanh(x / 2)) / 2,  # x / (1 + exp(-x)), without overflow
}
"""Activation functions by the names of `Policy.activation`; they may overwrite what they are given."""


class SingleImagePolicy:
    """The loop of `rlprune.policies.loop.run_policy` for one image: the same decisions.

    Args:
        policy: for one penalty, on the CPU.
        prices: cost of a pass, as observations count it.
        first: what `rlprune.policies.loop.first_profile` returned for the policy.
    """

    def __init__(self, policy: Policy, prices: CostBreakdown, first: int | None) -> None:
        self._policy = policy
        self._observer = policy.observer
        self._first = first
        self._function = _FUNCTIONS[policy.activation]
        linear = [layer for layer in policy.network if isinstance(layer, nn.Linear)]
        # Copies: where the policy is sent to another process, its tensors move into shared memory, and arrays that only
        # looked at them read freed memory.
        self._layers = [(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()) for layer in linear]
        self._margin_only = not FoldedPolicy(policy, begun=True).reads_probabilities
        self._index = torch.zeros(1, dtype=torch.int64)
        self._no_logits = torch.zeros(1, policy.observer.n_classes)
        dense = float(prices.dense.macs)
        self._stem = float(prices.stem.macs) / dense
        self._bodies = (prices.bodies.macs / dense).tolist()

    def run(self, stem_features: Tensor, run: Run, limit: Limit | None = None) -> PassResult:
        """Decide for one image, pass by pass.

        Args:
            stem_features: as `Observer.features` returns them, float32 (1, K).
            run: the network.
            limit: what may run, where that is less than the policy chooses.
        """
        features = stem_features.numpy()[0]
        logits = self._no_logits
        spent = self._stem
        max_passes = self._observer.max_passes
        profiles = [-1] * max_passes
        for n_pass in range(max_passes):
            if n_pass == 0 and self._first is not None:
                profile = self._first
            else:
                profile, accept = self._decide(features, logits.numpy()[0], n_pass, spent)
                if n_pass and (accept or profile == profiles[n_pass - 1]):
                    break
            if limit is not None:
                profile = limit(n_pass, profile, profiles[n_pass - 1] if n_pass else -1, 1, 1)
                if profile < 0:
                    break
            new = run(self._index, profile)
            logits = self._observer.joined(logits, new) if n_pass else new
            spent += self._bodies[profile]
            profiles[n_pass] = profile
        return PassResult(torch.tensor([profiles]), logits)

    def _decide(self, features: Vector, logits: Vector, n_pass: int, spent: float) -> tuple[int, bool]:
        """The profile to run next, and whether to accept the prediction so far instead."""
        outputs = self._observe(features, logits, n_pass, spent)
        for weight, bias in self._layers[:-1]:
            outputs = weight.dot(outputs)
            outputs += bias
            outputs = self._function(outputs)
        weight, bias = self._layers[-1]
        outputs = weight.dot(outputs)
        outputs += bias
        if self._policy.actions.kind == "profiles":
            chosen = int(outputs.argmax())
            n_profiles = len(self._bodies)
            return chosen % n_profiles, chosen == n_profiles
        profile, accept = self._policy.decided(torch.from_numpy(outputs)[None])
        return int(profile), bool(accept)

    def _observe(self, features: Vector, logits: Vector, n_pass: int, spent: float) -> Vector:
        """The observation that `Observer.observe` builds, float32 (D,)."""
        return observe_one(self._observer, features, logits, n_pass, spent, margin_only=self._margin_only)


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
