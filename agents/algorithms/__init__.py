"""Learning algorithms of Stable-Baselines3: by name, their arguments, and what of an agent can be exported.

May import what `rlprune.agents` may, but the environments only by what they offer; nothing here trains.
"""

from rlprune.agents.algorithms.kinds import NAMES, Algorithm, find_algorithm
from rlprune.agents.algorithms.learner import Learner

__all__ = ["NAMES", "Algorithm", "Learner", "find_algorithm"]
