"""How fast the environment is: steps of the batched one beside the network alone and single environments."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from rlprune.agents.vec_env import KeepRatioVecEnv
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.keep_ratio import KeepRatioEnv
from rlprune.envs.world import World
from rlprune.evaluation.results import Conditions
from rlprune.evaluation.timing_results import BenchmarkRow, EnvBenchmark
from rlprune.policies.observations import Observer
from rlprune.utils.finite import check_whole
from rlprune.utils.timing import interleaved

_REPEATS = 20
"""Steps of the cached environment per round: one is so short that it would time the caches' filling."""


def bench_env(network: ElasticCNN, data: ImageSet, n_envs: int = 256, seconds: float = 20.0) -> EnvBenchmark:
    """Time environment steps, one pass an episode.

    Args:
        network: the elastic network.
        data: images; every codebook profile of all of them is computed before its timing starts.
        n_envs: images at once.
        seconds: of timing for all rows together.

    Returns:
        Rows: `masked_forward` (the network alone), `vec_env` (levels of every group, the network run at each step),
        `dummy_vec_env` (as many single environments), `remembered` (a codebook, logits computed before).
    """
    check_whole(n_envs=n_envs, least=1, most=2**20)
    observer = Observer.fit(network, data)
    batched = KeepRatioVecEnv(World(network, data, observer=observer), n_envs)
    single = DummyVecEnv([lambda: KeepRatioEnv(network, data, observer=observer) for _ in range(n_envs)])
    cached = KeepRatioVecEnv(World(network, data, action="profiles", observer=observer), n_envs)
    images = data.normalised(torch.arange(n_envs) % len(data))
    rows = {}
    for name, env in (("vec_env", batched), ("dummy_vec_env", single), ("remembered", cached)):
        env.seed(0)
        env.reset()
        env.action_space.seed(0)
        actions = np.stack([env.action_space.sample() for _ in range(n_envs)])
        rows[name] = partial(_steps, env, actions, _REPEATS if name == "remembered" else 1)
    random_actions = np.stack([batched.action_space.sample() for _ in range(n_envs)])
    levels = batched.world.actions.decode(torch.as_tensor(random_actions))[0]

    def masked_forward() -> object:
        with torch.no_grad():
            return network(images, levels)

    for profile in range(cached.world.actions.n_choices[0]):  # one sweep over all images fills the cache
        episodes = cached.world.begin(torch.arange(len(data)))
        cached.world.step(episodes, torch.full((len(data),), profile).numpy())
    times = interleaved({"masked_forward": masked_forward, **rows}, seconds, min_rounds=3)
    times["remembered"] = [value / _REPEATS for value in times["remembered"]]
    speed = {name: n_envs / median(values) * 1e3 for name, values in times.items()}
    return EnvBenchmark(
        rows=tuple(
            BenchmarkRow(name=name, batch=n_envs, ms=median(values), images_per_s=speed[name])
            for name, values in times.items()
        ),
        vec_env_share=speed["vec_env"] / speed["masked_forward"],
        vec_env_speedup=speed["vec_env"] / speed["dummy_vec_env"],
        conditions=Conditions.now(),
    )


def _steps(env: VecEnv, actions: NDArray[Any], n: int) -> None:
    for _ in range(n):
        env.step(actions)
