"""A reward of your own, by name.

In this file's folder, or with that on PYTHONPATH:

    rlprune train --network ../runs/digits/network --data mnist5k --out ../runs/digits/own --reward own_reward:NoRegret
"""

from dataclasses import dataclass

from torch import Tensor

from rlprune.envs.rewards import Step


@dataclass(frozen=True)
class NoRegret:
    """A wrong answer costs something where the whole network would have been right; compute is paid as usual."""

    regret: float = 2.0

    def __call__(self, step: Step) -> Tensor:
        """Rewards of n episodes, float32 (n,)."""
        regretted = step.whole_correct & ~step.correct
        gain = step.correct.float() - self.regret * regretted.float()
        return gain * step.done - step.penalties * step.price
