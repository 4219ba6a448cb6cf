"""The world: an image comes, keep ratios are chosen for it, and accuracy minus the price of compute is the reward.

Importing this package registers `rlprune/KeepRatio-v0` with Gymnasium, for `gymnasium.make` and `make_vec`; and
`rlprune/KeepRatioProfiles-v0`, `rlprune/KeepRatioLevels-v0` and `rlprune/KeepRatioRatios-v0`, by kind of action.
"""

from typing import Any

from rlprune.errors import MissingExtraError

try:
    import gymnasium
except ModuleNotFoundError as error:
    raise MissingExtraError(
        "this needs the package 'gymnasium', which is not installed; install it with: pip install rlprune"
    ) from error

from rlprune.envs.keep_ratio import KeepRatioEnv
from rlprune.envs.logit_cache import LogitCache
from rlprune.envs.making import forget, make_world
from rlprune.envs.rewards import ControlVariate, CorrectMinusCost, Reward, Step
from rlprune.envs.rules import Rules
from rlprune.envs.sweep import Sweep, run_sweep
from rlprune.envs.vector import KeepRatioVectorEnv
from rlprune.envs.world import World

__all__ = [
    "ENV_ID",
    "ENV_IDS",
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
    "forget",
    "make_world",
    "run_sweep",
]

ENV_ID = "rlprune/KeepRatio-v0"
"""The environment's id in Gymnasium's registry."""
_MAX_EPISODE_STEPS = 4
"""One more than the most passes: Gymnasium also calls an episode truncated that ends by itself in its last step."""
_DEFAULTS = {"max_passes": 2, "control_variate": True}
"""What a policy is trained with if nothing else is said."""
_SETTINGS: dict[str, dict[str, Any]] = {
    ENV_ID: {},
    **{
        f"rlprune/KeepRatio{kind.capitalize()}-v0": {"action": kind, **_DEFAULTS}
        for kind in ("profiles", "levels", "ratios")
    },
}
ENV_IDS = tuple(_SETTINGS)
"""All ids: that one, whose defaults are those of `KeepRatioEnv`, and one for each kind of action."""

for _id, _settings in _SETTINGS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id,
            entry_point="rlprune.envs.keep_ratio:KeepRatioEnv",
            vector_entry_point="rlprune.envs.vector:KeepRatioVectorEnv",
            max_episode_steps=_MAX_EPISODE_STEPS,
            kwargs=_settings,
        )
