"""Learning a policy: Stable-Baselines3's PPO on the environment, its figures in TensorBoard, the policy it leaves.

May import everything but the pipelines and the command line; only this package knows Stable-Baselines3.
"""

from rlprune.agents.extract import extract_codebook, extract_policy
from rlprune.agents.joint.tuning import TuneSettings, tune
from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.agents.vec_env import KeepRatioVecEnv

__all__ = [
    "KeepRatioVecEnv",
    "PolicySettings",
    "TuneSettings",
    "extract_codebook",
    "extract_policy",
    "train_policy",
    "tune",
]
