"""Whether an agent can begin as a cascade, and what `begin="auto"` comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from rlprune.agents.algorithms.learner import Learner
from rlprune.agents.settings import PolicySettings
from rlprune.errors import RLPruneError

ALGORITHMS = ("ppo", "a2c", "trpo", "maskable_ppo")
"""Those with an actor that draws by its outputs, so that cascades can be written into it."""


def settled(
    settings: PolicySettings, learner: Learner, before: Mapping[str, Any] | None, *, own_observation: bool
) -> PolicySettings:
    """Settings that say which it is, cascade or random.

    Args:
        settings: of the run.
        learner: its algorithm.
        before: what the run was begun with, if it is gone on with; then "auto" is what it began as.
        own_observation: it has an observation of the user's own.

    Raises:
        RLPruneError: a cascade is asked for, and cannot be.
    """
    refused = cascade_refused(settings, learner, own_observation=own_observation)
    if settings.begin == "cascade" and refused is not None:
        raise RLPruneError(f"begin='cascade': {refused}; give begin='random'")
    if settings.begin != "auto":
        return settings
    if before is not None:
        return replace(settings, begin="cascade" if before.get("begin") == "cascade" else "random")
    return replace(settings, begin="random" if refused else "cascade")


def cascade_refused(settings: PolicySettings, learner: Learner, *, own_observation: bool) -> str | None:
    """Why no agent can begin as a cascade; None if one can."""
    activation = (learner.arguments.get("policy_kwargs") or {}).get("activation_fn", nn.Tanh)
    if refused := settings.cascade_refused():
        return refused
    if own_observation:
        return "a cascade reads the default observation, not one of your own"
    if learner.algorithm.name not in ALGORITHMS:
        return f"a cascade can be written into the actors of {', '.join(ALGORITHMS)} alone"
    if activation is not nn.Tanh:
        return f"a cascade needs Tanh between the layers, not {activation.__name__}"
    return None
