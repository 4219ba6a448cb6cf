"""Runs a policy on a single image, in NumPy: for so few numbers torch spends its time on launching operations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.policies.folded import FoldedPolicy
from rlprune.policies.one_observation import Vector, observe_one
from rlprune.policies.passes import CostBreakdown, Limit, PassResult, Run
from rlprune.policies.policy import Policy

_FUNCTIONS: dict[str, Callable[[Vector], Vector]] = {
    "Tanh": lambda x: np.tanh(x, out=x),
    "ReLU": lambda x: np.maximum(x, 0, out=x),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "SiLU": lambda x: x * (1 + np.tanh(x / 2)) / 2,  # x / (1 + exp(-x)), without overflow
}
"""Activation functions by the names of `Policy.activation`; they may overwrite what they are given."""


class SingleImagePolicy:
    """The loop of `rlprune.policies.passes.run_policy` for one image: the same decisions.

    Args:
        policy: for one penalty, on the CPU.
        prices: cost of a pass, as observations count it.
        first: what `rlprune.policies.passes.first_profile` returned for the policy.
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
