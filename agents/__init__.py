"""The learner: Stable-Baselines3's PPO on the environment, what TensorBoard shows of it, and its way out of there."""

from rlprune.agents.extract import boil_down, extract_policy
from rlprune.agents.train import PolicySettings, train_policy
from rlprune.agents.tune import TuneSettings, tune

__all__ = ["PolicySettings", "TuneSettings", "boil_down", "extract_policy", "train_policy", "tune"]
