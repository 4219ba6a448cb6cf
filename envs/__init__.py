"""The world: an image comes, keep ratios are chosen for it, and accuracy minus the price of compute is the reward.

Importing this package registers `rlprune/KeepRatio-v0` with Gymnasium, for `gymnasium.make` and `gymnasium.make_vec`.
"""

from rlprune.errors import MissingExtraError

try:
    import gymnasium
except ModuleNotFoundError as error:
    raise MissingExtraError(
        "this needs the package 'gymnasium', which is not installed; install it with: pip install rlprune"
    ) from error

from rlprune.envs.keep_ratio import KeepRatioEnv
from rlprune.envs.logit_cache import LogitCache
from rlprune.envs.rewards import ControlVariate, CorrectMinusCost, Reward, Step
from rlprune.envs.rules import Rules
from rlprune.envs.sweep import Sweep, run_sweep
from rlprune.envs.vector import KeepRatioVectorEnv
from rlprune.envs.world import World

__all__ = [
    "ENV_ID",
    "ControlVariate",
    "CorrectMinusCost",
    "KeepRatioEnv",
    "KeepRatioVectorEnv",
    "LogitCache",
    "Reward",
    "Rules",
    "Step",
    "Sweep",
    "World",
    "run_sweep",
]

ENV_ID = "rlprune/KeepRatio-v0"
"""The environment's id in Gymnasium's registry."""

if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        ENV_ID,
        entry_point="rlprune.envs.keep_ratio:KeepRatioEnv",
        vector_entry_point="rlprune.envs.vector:KeepRatioVectorEnv",
    )
