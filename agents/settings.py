"""How a policy is trained: one set of settings, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from rlprune.errors import RLPruneError
from rlprune.policies.actions import ActionKind
from rlprune.policies.penalties import PenaltyRange
from rlprune.profiles.cost import KINDS


@dataclass(frozen=True)
class PolicySettings:
    """What the policy is trained for, and how."""

    penalty: float = 0.3
    """Price of compute (lambda): what running the whole network once costs, in units of a right answer."""
    penalty_range: tuple[float, ...] = ()
    """Instead of one, the lowest and the highest penalty, above 0: one is drawn for every image and shown to the
    policy, which then serves them all, and any budget between (`model(images, budget=0.4)`)."""
    cost: str = "macs"
    """What is paid for: macs, params, or latency, which is measured on the machine that trains."""
    action: ActionKind = "profiles"
    """What the policy chooses: profiles of a codebook, levels of every group, or ratios of every group."""
    max_passes: int = 2
    """How often an image may be looked at, 1 to 3; with more than 1, the policy may accept or choose again."""
    combine: float = 0.0
    """How much what earlier passes said counts beside the last, which counts 1, in the answer and in what is seen."""
    pool: int = 2
    """The stem's features are averaged over a grid of this many cells per side; 0 leaves them out, which helps where
    few images train the policy: it learns those by heart otherwise."""
    control_variate: bool = True
    """Subtract the whole network's own correctness from the reward: less noise, same optimum."""
    total_steps: int = 200_000
    """Environment steps, a decision each."""
    n_envs: int = 256
    """Images decided on at once."""
    n_steps: int = 8
    """Steps of each environment per rollout."""
    batch_size: int = 512
    """Decisions per gradient step."""
    n_epochs: int = 4
    """Passes over each rollout."""
    learning_rate: float = 1e-3
    """Of Adam; falls linearly to zero."""
    entropy: float = 0.05
    """Bonus for undecided policies, which keeps exploration alive; falls linearly to zero."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the policy's hidden layers."""
    validate_every: int = 20_000
    """Environment steps between validation sweeps, and between checkpoints."""
    seed: int = 0
    """Fixes initial weights, exploration and the order of images."""

    def __post_init__(self) -> None:
        rollout = self.n_envs * self.n_steps
        if min(self.total_steps, self.n_envs, self.n_steps, self.n_epochs, self.validate_every) < 1:
            raise RLPruneError("total_steps, n_envs, n_steps, n_epochs and validate_every must be 1 or more")
        if self.batch_size < 2 or rollout % self.batch_size:
            raise RLPruneError(
                f"batch_size={self.batch_size} must be at least 2 and divide n_envs * n_steps = {rollout}"
            )
        if self.cost not in (*KINDS, "latency"):
            raise RLPruneError(f"cost kind {self.cost!r} is unknown; allowed: {', '.join(KINDS)}, latency")
        if not self.penalty >= 0 or not 1 <= self.max_passes <= 3 or self.learning_rate <= 0 or self.pool < 0:
            raise RLPruneError(
                f"penalty={self.penalty}, max_passes={self.max_passes}, learning_rate={self.learning_rate}, "
                f"pool={self.pool}: allowed are 0 or more, 1 to 3, above 0, and 0 or more"
            )
        if self.penalty_range and PenaltyRange.of(self.penalty_range) and self.action != "profiles":
            raise RLPruneError(
                f"penalty_range={self.penalty_range} and action={self.action!r}: a range needs action='profiles'"
            )
