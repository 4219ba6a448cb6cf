"""Environments of environments.yml for RL Zoo, which imports this module by itself if it lies in the current folder.

An id of one's own, with its values inside, is what training, evaluation, optimisation, enjoying and recording share:
of `env_kwargs` in a YAML file, RL Zoo 2.9 tells only the first and the fourth.
"""

from pathlib import Path

import gymnasium
import yaml

import rlprune.envs  # noqa: F401 (registers rlprune's own ids)

for name, values in yaml.safe_load(Path(__file__).with_name("environments.yml").read_text()).items():
    base = gymnasium.spec(values.pop("environment"))
    gymnasium.register(
        name,
        entry_point=base.entry_point,
        max_episode_steps=base.max_episode_steps,
        kwargs=base.kwargs | values,
    )
