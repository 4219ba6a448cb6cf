"""Decisions for each image: penalties, actions, observations, the policy, and the loop over passes.

May import `rlprune.profiles` and below, nothing that trains.
"""

from rlprune.policies.actions import ActionKind, Actions
from rlprune.policies.loop import run_policy
from rlprune.policies.observations import Observer
from rlprune.policies.one_image import SingleImagePolicy
from rlprune.policies.passes import CostBreakdown, PassResult
from rlprune.policies.penalties import PenaltyRange
from rlprune.policies.policy import Policy, check_fit
from rlprune.policies.protocol import Observation, Seen, StemAndBelief

__all__ = [
    "ActionKind",
    "Actions",
    "CostBreakdown",
    "Observation",
    "Observer",
    "PassResult",
    "PenaltyRange",
    "Policy",
    "Seen",
    "SingleImagePolicy",
    "StemAndBelief",
    "check_fit",
    "run_policy",
]
