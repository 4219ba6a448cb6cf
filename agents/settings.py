"""How a policy is trained: one set of settings, checked when it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field

from rlprune.policies.actions import ActionKind
from rlprune.profiles.cost import KINDS
from rlprune.utils.settings import (
    AtMost,
    LearningRate,
    Must,
    NonNegativeFloat,
    NonNegativeInt,
    Penalty,
    PositiveInt,
    Seed,
    as_tuple,
    settings_dataclass,
)

MOST_DECISIONS = 2**22
"""In a rollout."""
_COSTS = (*KINDS, "latency")


def _is_range(ends: tuple[float, ...]) -> bool:
    """Whether there is none, or one as `PenaltyRange` has them."""
    return not ends or (len(ends) == 2 and 1e-6 <= ends[0] < ends[1] <= 1000)


Ends = Annotated[
    tuple[float, ...],
    as_tuple,
    Must(_is_range, "two numbers above 0, ascending, or none; 0.000001 to 1000 will do"),
]
Widths = Annotated[tuple[Annotated[PositiveInt, AtMost(4096)], ...], as_tuple, AtMost(8)]
Begin = Literal["auto", "cascade", "random"]
CostKind = Annotated[str, Must(_COSTS.__contains__, f"one of {', '.join(_COSTS)}")]


@settings_dataclass
class PolicySettings:
    """What the policy is trained for, and how."""

    penalty: Penalty = 0.3
    """Price of compute (lambda): what running the whole network once costs, in units of a right answer."""
    penalty_range: Ends = ()
    """Instead of one, the lowest and the highest penalty, above 0: one is drawn for every image and shown to the
    policy, which then serves them all, and any budget between (`model(images, budget=0.4)`)."""
    cost: CostKind = "macs"
    """What is paid for: macs, params, or latency, which is measured on the machine that trains."""
    action: ActionKind = "profiles"
    """What the policy chooses: profiles of a codebook, levels of every group, or ratios of every group."""
    max_passes: Annotated[int, Field(ge=1, le=3)] = 2
    """Passes that an image may take, 1 to 3; with more than 1, the policy may accept or choose again."""
    combine: Annotated[NonNegativeFloat, AtMost(1000)] = 0.0
    """Weight of the logits of earlier passes; the last pass has 1. Counts in predictions and in observations."""
    pool: Annotated[NonNegativeInt, AtMost(32)] = 2
    """The stem's features are averaged over a grid of this many cells per side; 0 leaves them out, which helps where
    few images train the policy, which would otherwise memorise them."""
    begin: Begin = "auto"
    """What the agent begins as: cascade, the best one of the codebook for its penalty (profiles chosen in turn by
    thresholds, nothing learnt), which it learns on from, and which stays where validation images do not say that
    learning was worth it; random weights; or auto: a cascade where there can be one. With a run to start from, the
    agent begins as that one's."""
    control_variate: bool = True
    """Subtract the whole network's own correctness from the reward: less noise, same optimum."""
    total_steps: PositiveInt = 200_000
    """Environment steps, a decision each."""
    n_envs: Annotated[PositiveInt, AtMost(2**16)] = 256
    """Images decided on at once."""
    n_steps: Annotated[PositiveInt, AtMost(2**16)] = 8
    """Steps of each environment per rollout."""
    batch_size: Annotated[int, Field(ge=2), AtMost(2**20)] = 512
    """Decisions per gradient step."""
    n_epochs: Annotated[PositiveInt, AtMost(1000)] = 4
    """Passes over each rollout."""
    learning_rate: LearningRate = 1e-3
    """Of Adam; falls linearly to zero."""
    entropy: Annotated[NonNegativeFloat, AtMost(1000)] = 0.05
    """Bonus for undecided policies, which keeps exploration alive; falls linearly to zero."""
    hidden: Widths = (64, 64)
    """Widths of the policy's hidden layers."""
    validate_every: PositiveInt = 20_000
    """Environment steps between validation sweeps, and between checkpoints."""
    seed: Seed = 0
    """Fixes initial weights, exploration and the order of images: with it, on the same machine and as many threads, a
    training gives the same policy, byte for byte."""

    def _conflicts(self) -> Iterator[str]:
        rollout = self.n_envs * self.n_steps
        if rollout > MOST_DECISIONS:
            yield (
                f"n_envs={self.n_envs}, n_steps={self.n_steps}: give fewer, so that their product is at most "
                f"{MOST_DECISIONS}: all decisions of a rollout are kept in memory"
            )
        if rollout % self.batch_size:
            yield (
                f"batch_size={self.batch_size}, n_envs={self.n_envs}, n_steps={self.n_steps}: give a batch_size that "
                f"divides n_envs * n_steps, which is {rollout}"
            )
        if self.begin == "cascade" and (refused := self.cascade_refused()):
            yield f"begin='cascade': {refused}; give begin='random'"
        if self.penalty_range and self.action != "profiles":
            yield (
                f"penalty_range={self.penalty_range}, action={self.action!r}: a range needs action='profiles'; give "
                "that, or a single penalty"
            )

    def noted(self) -> dict[str, Any]:
        """All settings by name, as notes of 0.1.0 had them: without `begin`, where it is left open."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("begin", "auto")}

    def cascade_refused(self) -> str | None:
        """Why an agent under these settings cannot begin as a cascade; None if it can."""
        if self.action != "profiles":
            return f"a cascade chooses profiles, not {self.action}"
        if self.max_passes < 2:
            return "a cascade needs max_passes of 2 or 3"
        if not self.hidden or min(self.hidden) < self.max_passes:
            return f"a cascade needs hidden layers, each of {self.max_passes} units or more, not {self.hidden}"
        return None
