"""How episodes are run: many at once, as Gymnasium's batched environment and Stable-Baselines3's share it, or one.

May import the world and the screen that shows it, and Gymnasium.
"""

from rlprune.envs.running.seats import Seat, SeatError
from rlprune.envs.running.slots import Slots, Stepped

__all__ = ["Seat", "SeatError", "Slots", "Stepped"]
