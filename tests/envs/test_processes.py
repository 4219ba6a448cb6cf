from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from nets import make_data, make_elastic, make_policy
from numpy.typing import NDArray
from processes import Player, Predicted, rollout
from stable_baselines3.common.vec_env import SubprocVecEnv
from torch.utils.data import DataLoader

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.envs.keep_ratio import KeepRatioEnv
from rlprune.profiles.codebook import uniform_codebook
from rlprune.profiles.cost import Cost

NETWORK = make_elastic("residual")
DATA = make_data(8)
MAKE = partial(KeepRatioEnv, NETWORK, DATA, action="profiles", max_passes=2)


def expected(seed: int, n_envs: int) -> tuple[NDArray[Any], list[NDArray[np.float32]], list[list[float]]]:
    """Actions (steps, environments), and what single environments of this process give for them."""
    single = MAKE()
    actions = np.random.default_rng(0).integers(single.action_space.n, size=(4, n_envs))
    seen = [rollout(single, actions[:, index], seed + index) for index in range(n_envs)]
    steps = list(zip(*seen, strict=True))
    return actions, [np.stack([pair[0] for pair in step]) for step in steps], [[p[1] for p in step] for step in steps]


def test_stable_baselines_starts_environments_by_forkserver() -> None:
    actions, observations, rewards = expected(3, 1)
    envs = SubprocVecEnv([MAKE], start_method="forkserver")
    try:
        envs.seed(3)
        np.testing.assert_allclose(envs.reset(), observations[0], atol=1e-6)
        for action, observation, reward in zip(actions, observations[1:], rewards[1:], strict=True):
            seen, paid, _, _ = envs.step(action)
            np.testing.assert_allclose(seen, observation, atol=1e-6)
            np.testing.assert_allclose(paid, reward, atol=1e-6)
    finally:
        envs.close()


def test_gymnasium_spawns_environments() -> None:
    actions, observations, rewards = expected(5, 2)
    envs = AsyncVectorEnv([MAKE] * 2, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP)
    try:
        np.testing.assert_allclose(envs.reset(seed=5)[0], observations[0], atol=1e-6)
        for action, observation, reward in zip(actions, observations[1:], rewards[1:], strict=True):
            seen, paid, _, _, _ = envs.step(action)
            np.testing.assert_allclose(seen, observation, atol=1e-6)
            np.testing.assert_allclose(paid, reward, atol=1e-6)
    finally:
        envs.close()


def test_a_worker_of_the_loader_predicts() -> None:
    book = uniform_codebook(NETWORK, Cost(NETWORK))
    dynamic = DynamicCNN(NETWORK, make_policy(NETWORK, DATA, book), DATA.mean, DATA.std, DATA.classes)
    found = Predicted(dynamic, DATA)
    loader: DataLoader[Any] = DataLoader(found, batch_size=8, num_workers=1, multiprocessing_context="spawn")
    (probabilities,) = loader
    assert torch.allclose(probabilities, torch.stack([found[index] for index in range(8)]), atol=1e-6)


def test_an_actor_of_ray_plays_as_this_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(processes.__file__).parent))  # its processes have paths of their own
    actions, observations, rewards = expected(7, 1)
    ray.init("local", num_cpus=1, include_dashboard=False)  # whatever else runs here
    try:
        actor = ray.remote(Player).remote(MAKE())
        seen = ray.get(actor.play.remote(actions[:, 0], 7))
    finally:
        ray.shutdown()
    np.testing.assert_allclose(np.stack([each for each, _ in seen]), np.concatenate(observations), atol=1e-6)
    np.testing.assert_allclose([reward for _, reward in seen], np.concatenate(rewards), atol=1e-6)
