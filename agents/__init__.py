"""The learner: Stable-Baselines3's PPO on the environment, what TensorBoard shows of it, and its way out of there."""

from rlprune.agents.extract import boil_down, extract_policy
from rlprune.agents.train import PolicySettings, train_policy

__all__ = ["PolicySettings", "boil_down", "extract_policy", "train_policy"]
