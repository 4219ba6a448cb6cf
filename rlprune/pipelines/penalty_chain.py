"""Chains of policies over penalties: learnt from the highest down and from the lowest up, the better of both kept.

What is seldom found where compute is expensive, such as a cascade, is handed on from below; what is seldom found where
compute is cheap is handed on from above.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlprune.errors import RLPruneError
from rlprune.policies.policy import Policy
from rlprune.storage.folders import replaced, write_to_disk
from rlprune.utils.files import write_json, writing

Way = Literal["down", "up"]
"""From which end of the penalties a policy was learnt."""
Learn = Callable[[float, Path, Path | None], Policy]
"""Learns a policy: its penalty, its folder, the folder of the policy that it starts from (None: from scratch)."""
Reward = Callable[[float, Policy], float]
"""What a policy is worth at a penalty."""


@dataclass(frozen=True)
class PenaltyChain:
    """The policies of several penalties, each in a folder, each begun with the one before.

    Attributes:
        down: folder of the chain that begins at the highest penalty; that of the other one ends in `-up`.
        prefix: what the names of the policies' folders begin with; the penalty follows.
    """

    down: Path
    prefix: str = ""

    @property
    def up(self) -> Path:
        """Folder of the chain that begins at the lowest penalty."""
        return self.down.with_name(f"{self.down.name}-up")

    @property
    def rewards(self) -> Path:
        """JSON file of what both policies of each penalty are worth; see `learn_up_from_best`."""
        return self.up / "rewards.json"

    def folder(self, penalty: float, way: Way = "down") -> Path:
        """Where a policy is."""
        return (self.down if way == "down" else self.up) / f"{self.prefix}{penalty:g}"

    def take(self, other: PenaltyChain) -> None:
        """Copy the policies that another chain has learnt from the highest penalty down, each whole or not at all."""
        for folder in sorted(path for path in other.down.iterdir() if path.is_dir()):
            with writing(self.down / folder.name), replaced(self.down / folder.name) as copy:
                for path in sorted(folder.rglob("*")):  # folders come before what is in them
                    to = copy / path.relative_to(folder)
                    to.mkdir() if path.is_dir() else write_to_disk(to, path.read_bytes())

    def learn_down(self, learn: Learn, penalties: Iterable[float]) -> dict[float, Policy]:
        """Learn from the highest penalty down, each policy begun with the one before."""
        return self._learn(learn, sorted(penalties, reverse=True), "down")

    def learn_up(self, learn: Learn, penalties: Iterable[float]) -> dict[float, Policy]:
        """Learn from the lowest penalty up, each policy begun with the one before."""
        return self._learn(learn, sorted(penalties), "up")

    def learn_up_from_best(self, learn: Learn, learnt: Mapping[float, Policy], reward: Reward) -> None:
        """Learn from the second lowest penalty up, each policy begun with the better of the two of the one before.

        `rewards` is written at the end: for every penalty, as its folder is called, what either policy is worth.

        Args:
            learn: learns a policy.
            learnt: the policies of `learn_down`.
            reward: what is to be as high as possible.
        """
        rewards: dict[str, dict[Way, float]] = {}
        lowest, *higher = sorted(learnt)
        start = self.folder(lowest)
        for penalty in higher:
            policy = learn(penalty, self.folder(penalty, "up"), start)
            both: dict[Way, float] = {"down": reward(penalty, learnt[penalty]), "up": reward(penalty, policy)}
            rewards[f"{penalty:g}"] = both
            start = self.folder(penalty, better(both))
        write_json(self.rewards, rewards)

    def chosen(self, penalty: float) -> Path:
        """The folder of a penalty's better policy.

        Raises:
            RLPruneError: the policies are not all learnt yet.
        """
        if self.up.exists() and not self.rewards.exists():
            raise RLPruneError(
                f"{self.rewards} is not there yet: the policies are not all learnt; finish that step first"
            )
        rewards = json.loads(self.rewards.read_text()) if self.rewards.exists() else {}
        both = rewards.get(f"{penalty:g}")
        return self.folder(penalty, better(both) if both else "down")

    def _learn(self, learn: Learn, penalties: Iterable[float], way: Way) -> dict[float, Policy]:
        learnt: dict[float, Policy] = {}
        start: Path | None = None
        for penalty in penalties:
            folder = self.folder(penalty, way)
            learnt[penalty] = learn(penalty, folder, start)
            start = folder
        return learnt


def better(rewards: Mapping[Way, float]) -> Way:
    """The way of the higher reward; of equal ones, down."""
    return "up" if rewards["up"] > rewards["down"] else "down"
