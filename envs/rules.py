"""What a world is played by: actions, passes, prices, rewards, observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rlprune.elastic.module import ElasticModule
from rlprune.envs.rewards import ControlVariate, CorrectMinusCost, Reward
from rlprune.errors import RLPruneError
from rlprune.policies.actions import ActionKind
from rlprune.policies.named import made
from rlprune.policies.observations import Observer
from rlprune.policies.penalties import PenaltyRange
from rlprune.profiles.cost import KINDS
from rlprune.profiles.latency import Latency
from rlprune.utils.finite import check_whole


@dataclass(frozen=True, eq=False)
class Rules:
    """What a world is played by; `rlprune.envs.keep_ratio.KeepRatioEnv` documents the fields.

    Attributes:
        action: kind of the action space.
        max_passes: 1 to 3.
        combine: weight of earlier passes' logits, where the last one's is 1.
        penalty: price of compute, 0 or more; or the lowest and the highest of a range, above 0.
        cost: what is paid for: `params`, `macs`, or time.
        control_variate: whether the whole network's own correctness is subtracted from the reward.
        reward: in place of the default one: an object as `rlprune.envs.rewards.Reward` has it, or its name, as for
            `rlprune.policies.named.made`.
        policy_cost: parameters and MACs of one decision.
        pool: cells per side of the grid that stem features are averaged over.
        observation: in place of the default one, which `pool` is for: an object as
            `rlprune.policies.protocol.Observation` has it, or its name.

    Raises:
        RLPruneError: there is no such cost or no such penalty; or there are two rewards.
    """

    action: ActionKind = "levels"
    max_passes: int = 1
    combine: float = 0.0
    penalty: float | Sequence[float] = 0.3
    cost: str | Latency = "macs"
    control_variate: bool = False
    policy_cost: tuple[int, int] = (0, 0)
    pool: int = 2
    reward: Any = None
    observation: Any = None

    def __post_init__(self) -> None:
        if self.control_variate and self.reward is not None:
            raise RLPruneError(
                "control_variate=True and reward=... exclude each other; to subtract the whole network's correctness "
                "is a reward, too: rlprune.envs.rewards.ControlVariate"
            )
        check_whole(pool=self.pool, least=0, most=32)
        check_whole(max_passes=self.max_passes)
        check_whole(**{f"policy_cost[{i}]": part for i, part in enumerate(self.policy_cost)}, least=0, most=2**62)
        ends = self.penalty if isinstance(self.penalty, Sequence) else [self.penalty]
        if any(isinstance(end, str | bool | None) for end in ends):
            raise RLPruneError(f"penalty is {self.penalty!r}; a number of 0 or more, or two of them, are needed")
        if not isinstance(self.cost, Latency) and self.cost not in KINDS:
            allowed = ", ".join(KINDS)
            raise RLPruneError(f"cost kind {self.cost!r} is unknown; allowed: {allowed}, or a Latency or its file")
        if not isinstance(self.price, PenaltyRange) and not 0 <= self.price <= 1e9:
            raise RLPruneError(
                f"penalty is {self.penalty}; a number of 0 or more, or a range (lowest, highest), is needed"
            )

    @cached_property
    def price(self) -> float | PenaltyRange:
        """The penalty of all episodes, or the range that those of single episodes come from."""
        if isinstance(self.penalty, int | float):
            return float(self.penalty)
        return PenaltyRange.of(tuple(self.penalty))

    @property
    def penalties(self) -> PenaltyRange | None:
        """The range of penalties, if there is one."""
        return self.price if isinstance(self.price, PenaltyRange) else None

    def make_reward(self) -> Reward:
        """The reward.

        Raises:
            RLPruneError: it cannot be made.
        """
        default = ControlVariate() if self.control_variate else CorrectMinusCost()
        reward: Reward = default if self.reward is None else made("reward", self.reward)
        return reward

    def check_observer(self, observer: Observer) -> None:
        """Make sure that an observer was built for these rules.

        Raises:
            RLPruneError: it was built for others.
        """
        needed = {"max_passes": self.max_passes, "combine": self.combine, "penalties": self.penalties}
        for name, value in needed.items():
            if getattr(observer, name) != value:
                raise RLPruneError(f"the observer has {name}={getattr(observer, name)}, the environment {name}={value}")

    def check_latency(self, network: ElasticModule) -> None:
        """Make sure that time, if it is what is paid for, was measured on this network.

        Raises:
            RLPruneError: it was measured on another one.
        """
        if isinstance(self.cost, Latency):
            self.cost.check(network)
