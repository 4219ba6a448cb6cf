"""How fast the world turns: steps of the batched environment beside the network alone and single environments."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from rlprune.benchmark import interleaved
from rlprune.data import ImageSet
from rlprune.elastic import ElasticCNN
from rlprune.envs.keep_ratio import KeepRatioEnv
from rlprune.envs.vector import KeepRatioVecEnv
from rlprune.envs.world import World
from rlprune.evaluate import conditions
from rlprune.observation import Observer


def bench_env(network: ElasticCNN, data: ImageSet, n_envs: int = 256, seconds: float = 20.0) -> dict[str, Any]:
    """Time environment steps, one pass an episode.

    Args:
        network: the elastic network.
        data: images; every codebook profile of all of them is computed before its timing starts.
        n_envs: images at once.
        seconds: of timing for all rows together.

    Returns:
        `rows` of {name, batch, ms, images_per_s}: `masked_forward` (the network alone), `vec_env` (levels of every
        group, the network run at each step), `dummy_vec_env` (as many single environments), `remembered` (a codebook,
        logits already known); `vec_env_share` and `vec_env_speedup` are the second over the first and the third.
    """
    observer = Observer.fit(network, data)
    batched = KeepRatioVecEnv(World(network, data, observer=observer), n_envs)
    single = DummyVecEnv([lambda: KeepRatioEnv(network, data, observer=observer) for _ in range(n_envs)])
    remembered = KeepRatioVecEnv(World(network, data, action="profiles", observer=observer), n_envs)
    images = data.normalised(torch.arange(n_envs) % len(data))
    rows = {}
    for name, env in (("vec_env", batched), ("dummy_vec_env", single), ("remembered", remembered)):
        env.seed(0)
        env.reset()
        env.action_space.seed(0)
        rows[name] = partial(env.step, np.stack([env.action_space.sample() for _ in range(n_envs)]))
    random_actions = np.stack([batched.action_space.sample() for _ in range(n_envs)])
    levels = batched.world.actions.decode(torch.as_tensor(random_actions))[0]

    def masked_forward() -> object:
        with torch.no_grad():
            return network(images, levels)

    for profile in range(remembered.world.actions.n_choices[0]):  # one sweep over all images fills the memory
        episodes = remembered.world.begin(torch.arange(len(data)))
        remembered.world.step(episodes, torch.full((len(data),), profile).numpy())
    times = interleaved({"masked_forward": masked_forward, **rows}, seconds, min_rounds=3)
    speed = {name: n_envs / median(values) * 1e3 for name, values in times.items()}
    return {
        "rows": [
            {"name": name, "batch": n_envs, "ms": median(values), "images_per_s": speed[name]}
            for name, values in times.items()
        ],
        "vec_env_share": speed["vec_env"] / speed["masked_forward"],
        "vec_env_speedup": speed["vec_env"] / speed["dummy_vec_env"],
        **conditions(),
    }
