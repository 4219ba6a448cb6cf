"""What an agent begins as, chance or the best cascade of its codebook, and which of it and what was learnt is kept.

May import what `rlprune.agents` may; nothing here trains.
"""

from rlprune.agents.beginning.cascades import Beginning, begin_as, best_beginning
from rlprune.agents.beginning.keeping import Choice, Keeper

__all__ = ["Beginning", "Choice", "Keeper", "begin_as", "best_beginning"]
