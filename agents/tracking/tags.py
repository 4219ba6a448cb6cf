"""The figures of trainings by their tags: the one table, which the documentation shows and tests compare runs with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["scalar", "histogram", "image", "settings"]


@dataclass(frozen=True)
class Tag:
    """A figure that TensorBoard shows of a run.

    Attributes:
        name: as TensorBoard has it; words in capitals stand for names or numbers.
        kind: how TensorBoard shows it.
        meaning: what it says.
        when: runs that have it, where not all have.
    """

    name: str
    kind: Kind
    meaning: str
    when: str = ""

    def fits(self, name: str, kind: str) -> bool:
        """Whether it is the one that describes a figure of a run."""
        parts = re.split("([A-Z]+)", self.name)
        pattern = "".join(".+" if i % 2 else re.escape(part) for i, part in enumerate(parts))
        return kind == self.kind and re.fullmatch(pattern, name) is not None


_NOT_PPO = "other algorithms than PPO"
_CONTINUOUS = "SAC, TQC, TD3 and DDPG"
TAGS = (
    Tag("rollout/ep_rew_mean", "scalar", "reward per image, over the last episodes; Stable-Baselines3's"),
    Tag("rollout/ep_len_mean", "scalar", "decisions per image, likewise"),
    Tag("rollout/success_rate", "scalar", "share of right answers, likewise"),
    Tag("rollout/exploration_rate", "scalar", "share of random actions", "DQN and its kin"),
    Tag("train/loss", "scalar", "of the update after a rollout, as all of `train/`, which is Stable-Baselines3's"),
    Tag("train/policy_gradient_loss", "scalar", "the part of it that pays for better actions"),
    Tag("train/value_loss", "scalar", "error of the predicted rewards"),
    Tag("train/entropy_loss", "scalar", "minus how undecided the policy is"),
    Tag("train/approx_kl", "scalar", "how far the update moved the policy"),
    Tag("train/clip_fraction", "scalar", "share of decisions whose change was clipped"),
    Tag("train/clip_range", "scalar", "where changes are clipped"),
    Tag("train/clip_range_vf", "scalar", "likewise, of the predicted rewards", "PPO with `clip_range_vf`"),
    Tag("train/explained_variance", "scalar", "share of the rewards' variance that is predicted"),
    Tag("train/learning_rate", "scalar", "of the update"),
    Tag("train/std", "scalar", "spread of exploration", "actions that are `ratios`"),
    Tag("train/policy_loss", "scalar", "as `train/policy_gradient_loss`", _NOT_PPO),
    Tag("train/actor_loss", "scalar", "of the actor", _CONTINUOUS),
    Tag("train/critic_loss", "scalar", "of the critics", _CONTINUOUS),
    Tag("train/ent_coef", "scalar", "weight of the entropy bonus", "SAC and TQC"),
    Tag("train/ent_coef_loss", "scalar", "of that weight", "SAC and TQC"),
    Tag("train/policy_objective", "scalar", "what the update raised", "TRPO"),
    Tag("train/kl_divergence_loss", "scalar", "how far the update moved the policy", "TRPO"),
    Tag("train/is_line_search_success", "scalar", "whether the update found a step", "TRPO"),
    Tag("time/fps", "scalar", "environment steps a second since the run began or went on; Stable-Baselines3's"),
    Tag("policy/accuracy", "scalar", "share of right answers since the last rollout, with exploration"),
    Tag("policy/active_params", "scalar", "mean per image, over the dense network's; every pass and the policy"),
    Tag("policy/active_macs", "scalar", "likewise"),
    Tag("policy/passes", "scalar", "mean passes per image"),
    Tag("policy/distinct_profiles", "scalar", "different profiles chosen since the last rollout"),
    Tag("keep/GROUP", "scalar", "mean keep ratio chosen for a channel group"),
    Tag("validation/reward", "scalar", "mean reward of one deterministic sweep over the validation images"),
    Tag("validation/accuracy", "scalar", "share of right answers in that sweep"),
    Tag("validation/active_params", "scalar", "mean per image, over the dense network's"),
    Tag("validation/active_macs", "scalar", "likewise"),
    Tag("validation/passes", "scalar", "mean passes per image"),
    Tag("validation/distinct_profiles", "scalar", "different profiles chosen in that sweep"),
    Tag("validation/active_macs_per_image", "histogram", "what is spent on each image: its share of the dense MACs"),
    Tag("validation/easy_and_hard", "image", "images the policy spends least and most on, with what it spends"),
    Tag("weights/TENSOR", "histogram", "the agent's weights at that sweep, by their names in Stable-Baselines3"),
    Tag("_hparams_", "settings", "all settings, beside the figures of the last sweep (HPARAMS in TensorBoard)"),
)
"""Of the training of a policy; the horizontal axis is environment steps."""
_PLAIN = "trainings of one network, such as `pretrain`"
_PROFILES = "trainings under random profiles, such as `adapt`"
NETWORK_TAGS = (
    Tag("TRAINING/loss", "scalar", "mean over the epoch, and over the profiles, where there are several"),
    Tag("TRAINING/learning_rate", "scalar", "at the end of the epoch"),
    Tag("TRAINING/accuracy", "scalar", "share of right answers on training images", _PLAIN),
    Tag("TRAINING/largest", "scalar", "loss of the largest profile", _PROFILES),
    Tag("TRAINING/smallest", "scalar", "loss of the smallest profile", _PROFILES),
    Tag("TRAINING/density", "scalar", "share of gated channels or branches that stay", "trainings of gates"),
    Tag("TRAINING/profile_N", "scalar", "share of the images that ran a profile", "joint tuning, `tuning/network-N`"),
)
"""Of trainings of networks, once an epoch; the horizontal axis is images seen. TRAINING is the verb or the step."""


def table(tags: tuple[Tag, ...]) -> str:
    """Tags as a table in Markdown."""
    lines = ["| tag | kind | meaning | in runs of |", "|---|---|---|---|"]
    lines += [f"| `{tag.name}` | {tag.kind} | {tag.meaning} | {tag.when or 'all'} |" for tag in tags]
    return "\n".join(lines)
