"""Which is kept at the end: what was learnt, or the cascade that could have been had without learning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from rlprune.agents.algorithms.masks import greedy
from rlprune.envs.sweep import image_rewards, run_sweep
from rlprune.envs.world import World
from rlprune.errors import RLPruneError
from rlprune.policies.policy import Policy

CONFIDENCE = 0.84
"""Standard errors that what was learnt has to be ahead by on validation images: a cascade that it only equals stays in
four runs of five. A stricter one would throw away gains of some tenths of a point, which is what is to be had, where
there are less than ten thousand images; a laxer one would keep what is ahead by luck."""


@dataclass(frozen=True)
class Choice:
    """What is kept of a run, and why.

    Attributes:
        kept: `learnt` or `cascade`.
        gain: reward per validation image of what was learnt, less the cascade's; the mean over penalties of a range.
        standard_error: of the gain, over images.
        gain_in_training: the same gain on the images that it was learnt from.
    """

    kept: Literal["learnt", "cascade"]
    gain: float
    standard_error: float
    gain_in_training: float

    @classmethod
    def between(cls, on_validation: Tensor, in_training: Tensor) -> Choice:
        """Keep what was learnt if it is ahead on validation images by more than chance.

        The images that train have no say: the cascade is the best of thousands on these very images, what was learnt
        was learnt from them, and by how much each of the two flatters is not known.

        Args:
            on_validation: for each image, the reward of what was learnt, less the cascade's, (N,).
            in_training: the same on images that train the policy, (M,).
        """
        n = len(on_validation)
        gain = float(on_validation.double().mean())
        error = float(on_validation.double().std()) / math.sqrt(n) if n > 1 else math.inf
        kept: Literal["learnt", "cascade"] = "learnt" if gain > CONFIDENCE * error else "cascade"
        return cls(kept, gain, error, float(in_training.double().mean()))

    def noted(self) -> dict[str, Any]:
        """It as notes hold it."""
        known = {name: value for name, value in asdict(self).items() if value != math.inf}
        return {"standard_error": None} | known | {"confidence": CONFIDENCE}

    @classmethod
    def of_notes(cls, notes: Any) -> Choice:
        """What `noted` gave.

        Raises:
            RLPruneError: the notes say something else.
        """
        try:
            gain, in_training = float(notes["gain"]), float(notes["gain_in_training"])
            spread = math.inf if notes["standard_error"] is None else float(notes["standard_error"])
            kept: Any = {"learnt": "learnt", "cascade": "cascade"}[notes["kept"]]
        except (KeyError, TypeError, ValueError) as error:
            raise RLPruneError("the notes on what was kept of the run are damaged; train it anew") from error
        return cls(kept, gain, spread, in_training)

    def __str__(self) -> str:
        """In a line: what is kept, and the figures that say so."""
        kept = "what was learnt" if self.kept == "learnt" else "the cascade, as learning is not surely ahead of it,"
        return (
            f"{kept} is kept: learning gains {self.gain:+.4f} of reward per validation image, with a standard error of "
            f"{self.standard_error:.4f}, and {self.gain_in_training:+.4f} on the images that train"
        )


class Keeper:
    """Compares an agent with the cascade that it began as, or could have.

    Args:
        policy: the cascade.
        worlds: of the images that train, and of those that validate.

    Attributes:
        policy: the cascade.
        figures: of its sweep of the validation images.
    """

    def __init__(self, policy: Policy, worlds: Sequence[World]) -> None:
        self.policy = policy
        self._worlds = worlds
        self._cascade = [image_rewards(world, self._decide) for world in worlds]
        self.figures = run_sweep(worlds[1], self._decide).summary()

    def choose(self, agent: BaseAlgorithm) -> Choice:
        """Which of both is kept, as the agent is now."""
        in_training, on_validation = (
            image_rewards(world, greedy(agent, world.actions, world.observer)) - of_cascade
            for world, of_cascade in zip(self._worlds, self._cascade, strict=True)
        )
        return Choice.between(on_validation, in_training)

    @torch.no_grad()
    def _decide(self, seen: NDArray[Any]) -> NDArray[Any]:
        """What the cascade does: observations float32 (n, D) -> actions (n,)."""
        chosen: NDArray[Any] = self.policy.actions.greedy(self.policy.network(torch.from_numpy(seen)))[:, 0].numpy()
        return chosen
