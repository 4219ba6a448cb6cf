"""Many episodes at once: what Gymnasium's batched environment and Stable-Baselines3's share.

May import the world and the screen that shows it, and Gymnasium.
"""

from rlprune.envs.batches.seats import Seat, SeatError
from rlprune.envs.batches.slots import Slots, Stepped

__all__ = ["Seat", "SeatError", "Slots", "Stepped"]
