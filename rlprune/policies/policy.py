"""The learnt policy as plain tensors: a small network from observations to actions, without what trained it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.elastic.levels import KeepLevels
from rlprune.elastic.module import ElasticModule
from rlprune.errors import MALFORMED, BundleError, LevelsError, RLPruneError
from rlprune.policies.actions import Actions, nearest_profiles
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange, check_budgets, penalty_for

_ONE_PENALTY = "it was trained for a single penalty; one for many is trained with --penalty-range LOWEST HIGHEST"
_ACTIVATIONS: dict[str, type[nn.Module]] = {"Tanh": nn.Tanh, "ReLU": nn.ReLU, "ELU": nn.ELU, "SiLU": nn.SiLU}


class Policy(nn.Module):
    """Decides, for each image and each pass, which profile of the codebook to run, or to accept the last prediction.

    Args:
        sizes: widths of the layers, from the observation's to the outputs'.
        activation: name of the function between them.
        observer: what builds the observations.
        actions: what the outputs mean.
        codebook: int64 (K, G); a policy over levels or ratios is taken to the nearest of these profiles.
        budgets: of a policy for a range of penalties, float64 (M, 2): some of them, and which share of the dense
            multiply-adds images cost at each on average, as `rlprune.policies.penalties.monotone_budgets` makes it.

    Raises:
        BundleError: the parts do not fit each other.
        RLPruneError: the budgets are none.
    """

    codebook: Tensor
    budgets: Tensor | None

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        observer: Observer,
        actions: Actions,
        codebook: Tensor,
        budgets: Tensor | None = None,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise BundleError(f"activation {activation!r} is unknown; allowed: {', '.join(_ACTIVATIONS)}")
        if sizes[0] != observer.size or sizes[-1] != actions.n_outputs:
            raise BundleError(
                f"the policy maps {sizes[0]} numbers to {sizes[-1]}; "
                f"observations have {observer.size} entries, actions {actions.n_outputs}"
            )
        if (budgets is None) != (observer.penalties is None):
            raise BundleError("a policy for a range of penalties needs to know what they cost, any other does not")
        if budgets is not None and observer.penalties is not None:
            check_budgets(budgets, observer.penalties)
        self.sizes, self.activation, self.observer, self.actions = tuple(sizes), activation, observer, actions
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), _ACTIVATIONS[activation]()]
        self.network = nn.Sequential(*layers[:-1])
        self.register_buffer("codebook", codebook)
        self.register_buffer("budgets", budgets)

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the most that images can cost on average, as shares of the dense multiply-adds.

        Raises:
            RLPruneError: the policy was trained for one penalty.
        """
        if self.budgets is None:
            raise RLPruneError(f"this policy knows no budgets: {_ONE_PENALTY}")
        return float(self.budgets[-1, 1]), float(self.budgets[0, 1])

    def chosen(self, penalty: float | None = None, budget: float | None = None) -> float | None:
        """The penalty that counts where one is given, or a budget, or neither; None if there is only the one it learnt.

        Args:
            penalty: of the range; its middle, by logarithm, if neither is given.
            budget: instead, the mean share of the dense multiply-adds that images are to cost.

        Raises:
            RLPruneError: both are given; or outside of what the policy was trained for; or that was one penalty only.
        """
        seen = self.observer.penalties
        if penalty is not None and budget is not None:
            raise RLPruneError(f"penalty={penalty}, budget={budget}: give one of both")
        if seen is None or self.budgets is None:
            if penalty is None and budget is None:
                return None
            given = f"penalty={penalty}" if budget is None else f"budget={budget}"
            raise RLPruneError(f"{given} cannot be chosen: {_ONE_PENALTY}")
        if budget is not None:
            return min(max(penalty_for(budget, self.budgets), seen.low), seen.high)
        return float(seen.at(torch.tensor(0.5))) if penalty is None else seen.check(penalty)

    @torch.inference_mode(False)
    @torch.no_grad()
    def at(self, penalty: float | None = None, budget: float | None = None) -> Policy:
        """What a policy for a range of penalties is at one of them, which it then need not see; see `chosen`."""
        penalty, seen = self.chosen(penalty, budget), self.observer.penalties
        if penalty is None or seen is None:
            return self
        policy = copy.deepcopy(self)
        policy.sizes, policy.observer, policy.budgets = (
            (self.sizes[0] - 1, *self.sizes[1:]),
            self.observer.fixed(),
            None,
        )
        first = policy.network[0]
        assert isinstance(first, nn.Linear) and first.bias is not None
        first.bias.add_(first.weight[:, -1] * seen.place(torch.tensor(penalty)))
        first.weight, first.in_features = nn.Parameter(first.weight[:, :-1].clone()), policy.sizes[0]
        return policy.eval()

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Decide for observations (B, D): index of a profile int64 (B,), and whether to accept instead, bool (B,)."""
        return self.decided(self.network(observations))

    def decided(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """What the network's outputs (B, n_outputs) say, likewise."""
        chosen = self.actions.greedy(outputs)
        if self.actions.kind == "profiles":
            return self.actions.decode_profiles(chosen)
        levels, accept = self.actions.decode(chosen)
        return nearest_profiles(levels, self.codebook), accept

    def tensors(self) -> dict[str, Tensor]:
        """Everything learnt, to be stored."""
        return self.state_dict() | {"observer.mean": self.observer.mean, "observer.std": self.observer.std}

    def to_json(self) -> Any:
        """Everything else; `Policy.from_json` builds the policy again."""
        return {
            "sizes": self.sizes,
            "activation": self.activation,
            "n_classes": self.observer.n_classes,
            "max_passes": self.observer.max_passes,
            "pool": self.observer.pool,
            "combine": self.observer.combine,
            "penalties": self.observer.penalties and (self.observer.penalties.low, self.observer.penalties.high),
            "action": self.actions.kind,
            "keep_ratios": self.actions.keep_levels.keep_ratios,
            "min_level": self.actions.keep_levels.min_level.tolist(),
        }

    @classmethod
    def from_json(cls, description: Any, tensors: dict[str, Tensor]) -> Policy:
        """Build the policy that `to_json` and `tensors` described.

        Raises:
            BundleError: the description is malformed or does not fit the tensors.
        """
        try:
            tensors = dict(tensors)
            max_passes, codebook = int(description["max_passes"]), tensors["codebook"]
            mean, std = tensors.pop("observer.mean"), tensors.pop("observer.std")
            n_classes, pool = int(description["n_classes"]), int(description["pool"])
            combine = float(description.get("combine", 0))  # not known to the first policies
            penalties = description.get("penalties") and PenaltyRange.of(description["penalties"])  # likewise
            observer = Observer(mean, std, n_classes, max_passes, pool, combine, penalties)
            keep_levels = KeepLevels(description["keep_ratios"], torch.tensor(description["min_level"]))
            actions = Actions(description["action"], keep_levels, codebook, max_passes)
            budgets = tensors.get("budgets")
            policy = cls(description["sizes"], description["activation"], observer, actions, codebook, budgets)
            policy.load_state_dict(tensors)
        except BundleError:
            raise
        except (*MALFORMED, RLPruneError) as error:
            reason = " ".join(str(error).split())
            raise BundleError(f"the stored policy is malformed: {type(error).__name__}: {reason}") from error
        return policy.eval()


def check_fit(elastic: ElasticModule, policy: Policy, classes: tuple[str, ...]) -> None:
    """Make sure that a policy sees the features, levels and classes that a network has.

    Raises:
        BundleError: it was trained for another network.
    """
    features = elastic.feature_shape[0] * policy.observer.pool**2
    seen = policy.observer
    ours_and_theirs: dict[str, tuple[object, object]] = {
        "features": (features, len(seen.mean)),
        "outputs": (elastic.n_classes, seen.n_classes),
        "classes": (len(classes), seen.n_classes),
        "keep ratios": (elastic.keep_ratios, policy.actions.keep_levels.keep_ratios),
        "lowest levels": (elastic.min_level.tolist(), policy.actions.keep_levels.min_level.tolist()),
    }
    for name, (ours, theirs) in ours_and_theirs.items():
        if ours != theirs:
            raise BundleError(
                f"the policy was trained for another network: its {name} are {theirs}, the network's {ours}"
            )
    try:
        elastic.check_codebook(policy.codebook)
    except LevelsError as error:
        raise BundleError(f"the policy was trained for another network: {error}") from error
