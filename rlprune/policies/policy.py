"""The learnt policy as plain tensors: a small network from observations to actions, free of training code."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.elastic.levels import KeepLevels, nearest_profiles
from rlprune.elastic.module import ElasticModule
from rlprune.errors import MALFORMED, BundleError, LevelsError, OutOfMemoryError, RLPruneError
from rlprune.policies.actions import Actions
from rlprune.policies.linear import ACTIVATIONS, linear_layers
from rlprune.policies.observations import Observer
from rlprune.policies.own import check_own, stored_observation
from rlprune.policies.penalties import PenaltyRange, check_budgets, penalty_for
from rlprune.utils.hardware import memory_for

_ONE_PENALTY = "it was trained for a single penalty; one for many is trained with --penalty-range LOWEST HIGHEST"
_OBSERVER = "observer."
"""What the names of an observation's tensors begin with."""


class Policy(nn.Module):
    """Decides, for each image and each pass, which profile of the codebook to run, or to accept the prediction so far.

    Args:
        sizes: widths of the layers, from the observation's length to the number of outputs.
        activation: name of the function between the layers: `Tanh`, `ReLU`, `ELU` or `SiLU`.
        observer: builds the observations.
        actions: gives the outputs their meaning.
        codebook: int64 (K, G); the choice of a policy over levels or ratios becomes the nearest of these profiles.
        budgets: needed for a range of penalties: some of them, and the mean share of the dense MACs that
            images cost at each, float64 (M, 2), as `rlprune.policies.penalties.monotone_budgets` returns it.

    Raises:
        BundleError: an unknown activation; sizes that do not fit observer and actions; or budgets without a range of
            penalties, or a range without budgets.
        RLPruneError: the budgets are not monotone, or outside the range of penalties.
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
        if activation not in ACTIVATIONS:
            raise BundleError(f"activation {activation!r} is unknown; allowed: {', '.join(ACTIVATIONS)}")
        if sizes[0] != observer.size or sizes[-1] != actions.n_outputs:
            raise BundleError(
                f"the policy maps {sizes[0]} numbers to {sizes[-1]}; "
                f"observations have {observer.size} entries, actions {actions.n_outputs}"
            )
        if (budgets is None) != (observer.penalties is None):
            raise BundleError("budgets belong to a range of penalties, and a range needs budgets: give both or neither")
        if budgets is not None and observer.penalties is not None:
            check_budgets(budgets, observer.penalties)
        self.sizes = tuple(sizes)
        self.activation = activation
        self.observer = observer
        self.actions = actions
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
        self.network = nn.Sequential(*layers[:-1])
        self.register_buffer("codebook", codebook)
        self.register_buffer("budgets", budgets)

    @classmethod
    @torch.no_grad()
    def from_linear(
        cls,
        source: Any,
        activation: str | None = None,
        *,
        observer: Observer,
        actions: Actions,
        codebook: Tensor | None = None,
        budgets: Tensor | None = None,
    ) -> Policy:
        """A policy out of linear layers that were learnt anywhere.

        Their outputs are logits, means or values: it chooses the largest (of every entry of an action); for ratios, the
        outputs themselves, clipped.

        Args:
            source: an `nn.Sequential` of linear layers with activations between them, or a list of pairs of arrays:
                weights (outputs, inputs), as torch has them, and biases (outputs,) or None. A last `Tanh` is kept.
            activation: `Tanh`, `ReLU`, `ELU` or `SiLU`: what is between the layers, where `source` does not say it.
            observer: builds the observations that the layers were trained with; `world.observer` in an environment.
            actions: gives the outputs their meaning; `world.actions` in an environment.
            codebook: int64 (K, G), the profiles to deploy; those of `actions` if None.
            budgets: as in the class.

        Returns:
            The policy, in eval mode; its tensors are copies.

        Raises:
            BundleError: as in the class.
            RLPruneError: the layers are no such layers, or there is no codebook.
        """
        layers, activation = linear_layers(source, activation)
        codebook = actions.codebook if codebook is None else codebook
        if codebook is None:
            raise RLPruneError(
                f"a policy over {actions.kind} needs the profiles to deploy; give codebook, int64 (K, G)"
            )
        sizes = [layers[0][0].shape[1], *(len(bias) for _, bias in layers)]
        policy = cls(sizes, activation, observer, actions, codebook, budgets)
        targets = [layer for layer in policy.network if isinstance(layer, nn.Linear)]
        for target, (weight, bias) in zip(targets, layers, strict=True):
            target.weight.copy_(weight)
            target.bias.copy_(bias)
        return policy.eval()

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest mean cost per image, as shares of the dense network's MACs.

        Raises:
            RLPruneError: the policy was trained for one penalty.
        """
        if self.budgets is None:
            raise RLPruneError(f"this policy knows no budgets: {_ONE_PENALTY}")
        return float(self.budgets[-1, 1]), float(self.budgets[0, 1])

    def chosen(self, penalty: float | None = None, budget: float | None = None) -> float | None:
        """The penalty that the policy decides at when a penalty, a budget or neither is given.

        Args:
            penalty: one of the range; its middle on the logarithmic scale if neither is given.
            budget: instead, the mean share of the dense network's MACs that images may cost.

        Returns:
            The penalty; None for a policy that was trained for a single one.

        Raises:
            RLPruneError: both are given; the penalty or the budget is outside what the policy was trained for; or one
                is given and the policy was trained for a single penalty.
        """
        if penalty is not None and budget is not None:
            raise RLPruneError(f"penalty={penalty}, budget={budget}: give only one of them")
        for name, value in (("penalty", penalty), ("budget", budget)):
            if isinstance(value, bool | str) or not (value is None or hasattr(value, "__float__")):
                raise RLPruneError(f"{name} is a {type(value).__name__}; give a number")
        penalties = self.observer.penalties
        if penalties is None or self.budgets is None:
            self._refuse_choice(penalty, budget)
            return None
        if budget is not None:
            return min(max(penalty_for(budget, self.budgets), penalties.low), penalties.high)
        return float(penalties.at(torch.tensor(0.5))) if penalty is None else penalties.check(penalty)

    def _refuse_choice(self, penalty: float | None, budget: float | None) -> None:
        """Refuse a penalty or a budget where the policy was trained for a single penalty."""
        if penalty is not None or budget is not None:
            given = f"penalty={penalty}" if budget is None else f"budget={budget}"
            raise RLPruneError(f"{given} cannot be chosen: {_ONE_PENALTY}")

    @torch.inference_mode(False)
    @torch.no_grad()
    def at(self, penalty: float | None = None, budget: float | None = None) -> Policy:
        """The policy for a fixed penalty of its range, which its observations then leave out.

        Args:
            penalty: as in `chosen`.
            budget: as in `chosen`.

        Returns:
            A new policy; this one if it was trained for a single penalty.

        Raises:
            RLPruneError: as in `chosen`.
        """
        penalty = self.chosen(penalty, budget)
        penalties = self.observer.penalties
        if penalty is None or penalties is None:
            return self
        policy = copy.deepcopy(self)
        policy.sizes = (self.sizes[0] - 1, *self.sizes[1:])
        policy.observer = self.observer.fixed()
        policy.budgets = None
        first = policy.network[0]
        assert isinstance(first, nn.Linear) and first.bias is not None
        first.bias.add_(first.weight[:, -1] * penalties.place(torch.tensor(penalty)))
        first.weight = nn.Parameter(first.weight[:, :-1].clone())
        first.in_features = policy.sizes[0]
        return policy.eval()

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Decide for images.

        Args:
            observations: float32 (B, D), as `Observer.observe` builds them.

        Returns:
            Indices into the codebook int64 (B,), and whether to accept the prediction so far instead, bool (B,).
        """
        return self.decided(self.network(observations))

    def decided(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The decisions that outputs of `network`, float32 (B, n_outputs), stand for; as `forward` returns them."""
        chosen = self.actions.greedy(outputs)
        if self.actions.kind == "profiles":
            return self.actions.decode_profiles(chosen)
        levels, accept = self.actions.decode(chosen)
        return nearest_profiles(levels, self.codebook), accept

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the policy by name, for storage."""
        observer = self.observer
        observed = {"mean": observer.mean, "std": observer.std} if observer.own is None else observer.own.tensors()
        return self.state_dict() | {f"{_OBSERVER}{name}": tensor for name, tensor in observed.items()}

    def to_json(self) -> Any:
        """All other settings of the policy, for storage; `Policy.from_json` builds the policy again."""
        own = self.observer.own
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
        } | ({} if own is None else {"observation": own.to_json()})

    @classmethod
    def from_json(cls, description: Any, tensors: dict[str, Tensor], observation: Any = None) -> Policy:
        """Build the policy that `to_json` and `tensors` described.

        Args:
            description: what `to_json` returned.
            tensors: what `tensors` returned.
            observation: the class of its observation, or its name, ``"module:Class"``, where it is not the default one.

        Returns:
            The policy, in eval mode.

        Raises:
            BundleError: the description is malformed or does not fit the tensors; or its observation is somebody's own,
                and the class is not given.
            OutOfMemoryError: the machine has too little memory.
        """
        try:
            with memory_for("building a stored policy", "end other programs, or load it on a machine with more"):
                policy = cls._from_json(description, dict(tensors), observation)
        except (BundleError, OutOfMemoryError):
            raise
        except (*MALFORMED, RLPruneError) as error:
            reason = " ".join(str(error).split())
            raise BundleError(f"the stored policy is malformed: {type(error).__name__}: {reason}") from error
        return policy.eval()

    @classmethod
    def _from_json(cls, description: Any, tensors: dict[str, Tensor], observation: Any) -> Policy:
        max_passes = int(description["max_passes"])
        codebook = tensors["codebook"]
        penalties = description.get("penalties")  # unknown to the first policies, like `combine`
        observed = {name: tensors.pop(name) for name in [*tensors] if name.startswith(_OBSERVER)}
        own = stored_observation(
            description.get("observation"),
            {name.removeprefix(_OBSERVER): tensor for name, tensor in observed.items()},
            description["sizes"][0] - bool(penalties),
            observation,
        )
        observer = Observer(
            mean=observed[f"{_OBSERVER}mean"] if own is None else torch.zeros(0),
            std=observed[f"{_OBSERVER}std"] if own is None else torch.ones(0),
            n_classes=int(description["n_classes"]),
            max_passes=max_passes,
            pool=int(description["pool"]),
            combine=float(description.get("combine", 0)),
            penalties=PenaltyRange.of(penalties) if penalties else None,
            own=own,
        )
        keep_levels = KeepLevels(description["keep_ratios"], torch.tensor(description["min_level"]))
        actions = Actions(description["action"], keep_levels, codebook, max_passes)
        budgets = tensors.get("budgets")
        with torch.device("meta"):  # sizes that claim more than the tensors hold take no memory
            policy = cls(description["sizes"], description["activation"], observer, actions, codebook, budgets)
        policy.load_state_dict(tensors, assign=True)
        return policy


def check_fit(elastic: ElasticModule, policy: Policy, classes: tuple[str, ...]) -> None:
    """Make sure that a policy was trained for the features, levels and classes of a network.

    Args:
        elastic: the network.
        policy: the policy.
        classes: the network's class names.

    Raises:
        BundleError: it was trained for another network.
    """
    observer = policy.observer
    if observer.own is not None:
        check_own(observer.own, elastic.feature_shape, elastic.n_classes, observer.max_passes)
    features = elastic.feature_shape[0] * observer.pool**2
    network_and_policy: dict[str, tuple[object, object]] = {
        "features": (features, len(observer.mean)),
        "outputs": (elastic.n_classes, observer.n_classes),
        "classes": (len(classes), observer.n_classes),
        "keep ratios": (elastic.keep_ratios, policy.actions.keep_levels.keep_ratios),
        "lowest levels": (elastic.min_level.tolist(), policy.actions.keep_levels.min_level.tolist()),
    }
    for name, (of_network, of_policy) in network_and_policy.items():
        if of_network != of_policy:
            raise BundleError(
                f"the policy was trained for another network: its {name} are {of_policy}, the network's {of_network}"
            )
    try:
        elastic.check_codebook(policy.codebook)
    except LevelsError as error:
        raise BundleError(f"the policy was trained for another network: {error}") from error
