"""A policy with all that its observations are scaled by in its weights, and without what it gives no weight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.policies.protocol import MARGIN

if TYPE_CHECKING:
    from rlprune.policies.policy import Policy


class FoldedPolicy(nn.Module):
    """Decides as a policy does, with fewer operations.

    Of an observation only that is computed which the first layer gives weight to. A tuned cascade reads the margin and
    the number of passes: then no probabilities are computed, nor sorted. An observation of the user's own is made as it
    is.

    Args:
        policy: what is folded, in eval mode; later changes of its first layer are not seen.
        begun: whether each image that is decided on had a pass.

    Attributes:
        observer: the policy's.
        begun: as given.
        reads_features: whether the features of images are looked at.
        reads_probabilities: whether class probabilities or their entropy are; the margin needs neither.
    """

    weight: Tensor
    bias: Tensor
    of_place: Tensor

    def __init__(self, policy: Policy, *, begun: bool) -> None:
        super().__init__()
        self.observer = policy.observer
        self._policy = policy
        self.begun = begun
        self._fixed = self.observer.fixed()
        first = _first(policy)
        own = self.observer.own is not None
        self._parts = {"own": first.weight[:, : self._fixed.size].detach()} if own else _parts(policy)
        self.reads_features = own or "features" in self._parts
        self.reads_probabilities = own or bool({"probabilities", "entropy"} & self._parts.keys())
        self.register_buffer("weight", torch.cat([*self._parts.values()], 1))
        self.register_buffer("bias", first.bias.detach().clone())
        self.register_buffer("of_place", first.weight[:, self._fixed.size :].detach().sum(1))  # of one column, or none

    def forward(
        self, features: Tensor, logits: Tensor, passes: Tensor, spent: Tensor, place: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Decide for images.

        Args:
            features: as `Observer.features` returns them, float32 (B, K).
            logits: of the prediction so far, float32 (B, classes); zeros for images that had no pass.
            passes: how many were made so far, int64 (B,).
            spent: MACs of the passes so far over the dense network's, float (B,).
            place: of the penalty, in [0, 1], float32 (1,), where the policy was trained for a range of penalties.

        Returns:
            As `Policy.forward`.
        """
        return self.decide(self.entries(features, logits, passes, spent), place)

    def decide(self, entries: Tensor, place: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same from what `entries` returned."""
        assert (place is None) == (self.observer.penalties is None)
        bias = self.bias if place is None else self.bias + self.of_place * place
        return self._policy.decided(self._policy.network[1:](F.linear(entries, self.weight, bias)))

    def entries(self, features: Tensor, logits: Tensor, passes: Tensor, spent: Tensor) -> Tensor:
        """What is read of an observation, float32 (B, any)."""
        if "own" in self._parts:
            return self._fixed.observe(features, logits, passes, spent)
        read = {"spent": spent[:, None].float(), "passes": passes[:, None].float(), "features": features}
        read |= self._beliefs(logits, passes)
        return torch.cat([read[name] for name in self._parts], 1)

    def _beliefs(self, logits: Tensor, passes: Tensor) -> dict[str, Tensor]:
        """What is read of the predictions so far, each float32 (B, any)."""
        found: dict[str, Tensor] = {}
        n_top = min(2, logits.shape[1])
        if self.reads_probabilities:
            logits = logits.log_softmax(1)
            n_top = self.observer.n_beliefs
        top = logits.topk(n_top, dim=1).values
        if "probabilities" in self._parts:
            found["probabilities"] = top.exp()
        if "entropy" in self._parts:
            found["entropy"] = (logits.exp() * logits).sum(1, keepdim=True)
        if "margin" in self._parts:
            second = min(1, n_top - 1)
            margin = top[:, :1] - top[:, second : second + 1]
            found["margin"] = margin / (margin + MARGIN)
        if self.begun:
            return found
        had_one = (passes > 0)[:, None]
        return {name: entries * had_one for name, entries in found.items()}


class FirstProfile(nn.Module):
    """The profile that a policy which observes no features chooses first, the same one for every image.

    Args:
        policy: in eval mode.
        spent: MACs of the stem over the dense network's, float (1,).
    """

    entries: Tensor

    def __init__(self, policy: Policy, spent: Tensor) -> None:
        super().__init__()
        self._policy = FoldedPolicy(policy, begun=False)
        nothing = torch.zeros(1, 0), torch.zeros(1, policy.observer.n_classes), torch.zeros(1, dtype=torch.int64)
        self.register_buffer("entries", self._policy.entries(*nothing, spent))

    def forward(self, place: Tensor | None = None) -> Tensor:
        """Choose.

        Args:
            place: as in `FoldedPolicy.forward`.

        Returns:
            An index into the codebook, int64 (1,).
        """
        return self._policy.decide(self.entries, place)[0]


def _first(policy: Policy) -> nn.Linear:
    """The first layer of a policy."""
    first = policy.network[0]
    assert isinstance(first, nn.Linear)
    return first


def _parts(policy: Policy) -> dict[str, Tensor]:
    """Weights (outputs, any) of each part of an observation that has any, scaled; the number of passes in any case."""
    observer = policy.observer
    n_features, n_beliefs = observer.n_features, observer.n_beliefs
    scales = {
        "features": (n_features, 1.0),
        "probabilities": (n_beliefs, 1.0),
        "entropy": (1, -1 / math.log(max(observer.n_classes, 2))),
        "margin": (1, 1.0),
        "spent": (1, 1 / (2 * observer.max_passes)),
        "passes": (1, 1 / observer.max_passes),
    }
    weight = _first(policy).weight.detach()[:, : observer.fixed().size]
    columns = weight.split([n for n, _ in scales.values()], 1)
    scaled = {name: part * scale for (name, (_, scale)), part in zip(scales.items(), columns, strict=True)}
    return {name: part for name, part in scaled.items() if name == "passes" or bool(part.any())}
