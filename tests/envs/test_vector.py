from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from nets import make_data, make_elastic
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import VecMonitor

from rlprune.agents import KeepRatioVecEnv
from rlprune.envs import KeepRatioEnv, KeepRatioVectorEnv, World
from rlprune.errors import RLPruneError

NETWORK = make_elastic("residual")
DATA = make_data(30)
N = 4
actions = pytest.mark.parametrize("action", ["levels", "ratios", "profiles"])
passes = pytest.mark.parametrize("max_passes", [1, 2, 3])
combines = pytest.mark.parametrize("combine", [0.0, 0.5])


def make(n: int = N, **settings: Any) -> KeepRatioVecEnv:
    return KeepRatioVecEnv(World(NETWORK, DATA, **settings), n)


def sample(env: Any, n: int = N) -> Any:
    return np.stack([env.action_space.sample() for _ in range(n)])


def check_info(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, rtol=1e-6, equal_nan=True)


@actions
@passes
@combines
def test_a_batch_is_n_single_environments_step_for_step(action: str, max_passes: int, combine: float) -> None:
    settings: dict[str, Any] = {"action": action, "max_passes": max_passes, "combine": combine}
    settings |= {"control_variate": True, "policy_cost": (3, 7)}
    batch, singles = make(**settings), [KeepRatioEnv(NETWORK, DATA, **settings) for _ in range(N)]
    batch.seed(5)
    observations = batch.reset()
    expected = np.stack([env.reset(seed=5 + i)[0] for i, env in enumerate(singles)])
    batch.action_space.seed(0)
    for _ in range(8):
        np.testing.assert_allclose(observations, expected, atol=1e-5)
        chosen = sample(batch)
        observations, rewards, dones, infos = batch.step(chosen)
        for i, env in enumerate(singles):
            expected[i], reward, terminated, _, info = env.step(chosen[i])
            assert (rewards[i], dones[i]) == (pytest.approx(reward, abs=1e-6), terminated)
            check_info(infos[i], info)
            if terminated:
                np.testing.assert_allclose(infos[i]["terminal_observation"], expected[i], atol=1e-5)
                assert infos[i]["TimeLimit.truncated"] is False
                expected[i] = env.reset()[0]


@actions
@passes
@combines
def test_gymnasium_s_batch_is_stable_baselines_batch(action: str, max_passes: int, combine: float) -> None:
    settings: dict[str, Any] = {"action": action, "max_passes": max_passes, "combine": combine}
    ours, theirs = make(**settings), KeepRatioVectorEnv(N, NETWORK, DATA, **settings)
    ours.seed(5)
    np.testing.assert_array_equal(ours.reset(), theirs.reset(seed=5)[0])
    ours.action_space.seed(0)
    for _ in range(6):
        chosen = sample(ours)
        observations, rewards, dones, infos = ours.step(chosen)
        same, same_rewards, terminated, truncated, merged = theirs.step(chosen)
        np.testing.assert_array_equal(observations, same)
        np.testing.assert_array_equal(rewards, same_rewards)
        assert (dones == terminated).all() and not truncated.any()
        for i in dones.nonzero()[0]:
            np.testing.assert_array_equal(merged["final_obs"][i], infos[i]["terminal_observation"])
            assert merged["final_info"]["image"][i] == infos[i]["image"]
            assert merged["final_info"]["active_macs"][i] == pytest.approx(infos[i]["active_macs"])


def test_gymnasium_makes_it_by_its_name_alone() -> None:
    env = gymnasium.make_vec("rlprune.envs:rlprune/KeepRatio-v0", num_envs=3, network=NETWORK, data=DATA)
    assert isinstance(env, KeepRatioVectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert env.observation_space.contains(env.reset(seed=0)[0])
    assert env.action_space.contains(env.action_space.sample())


def test_gymnasium_s_own_batch_of_single_ones_is_the_same() -> None:
    settings: dict[str, Any] = {"network": NETWORK, "data": DATA, "max_passes": 2}
    vectorized = gymnasium.make_vec(
        "rlprune/KeepRatio-v0",
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **settings,
    )
    custom = gymnasium.make_vec("rlprune/KeepRatio-v0", num_envs=3, **settings)
    (observations, info), (ours, our_info) = vectorized.reset(seed=2), custom.reset(seed=2)
    np.testing.assert_allclose(observations, ours, atol=1e-5)
    np.testing.assert_equal(our_info, info)
    custom.action_space.seed(0)
    for _ in range(5):
        chosen = custom.action_space.sample()
        a, b = vectorized.step(chosen), custom.step(chosen)
        for mine, theirs in zip(a[:4], b[:4], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)
        assert a[4].keys() == b[4].keys()
        np.testing.assert_array_equal(a[4]["image"], b[4]["image"])


def test_seeds_are_reproducible() -> None:
    first, second = make(), make()
    for env in (first, second):
        env.seed(3)
    np.testing.assert_array_equal(first.reset(), second.reset())
    chosen = np.zeros((N, 3), np.int64)
    np.testing.assert_array_equal(first.step(chosen)[0], second.step(chosen)[0])
    second.seed(4)
    assert not np.array_equal(first.reset(), second.reset())


def test_a_reset_without_seed_goes_on_with_the_generators() -> None:
    env, single = make(1), KeepRatioEnv(NETWORK, DATA)
    env.seed(3)
    env.reset()
    single.reset(seed=3)
    for _ in range(4):
        np.testing.assert_allclose(env.reset()[0], single.reset()[0], atol=1e-5)


def test_gymnasium_s_seeds_may_be_a_list() -> None:
    env = KeepRatioVectorEnv(3, NETWORK, DATA)
    listed = env.reset(seed=[8, 9, 10])[0]
    np.testing.assert_array_equal(listed, env.reset(seed=8)[0])


def test_what_a_step_returned_does_not_change_later() -> None:
    env = make()
    observations = env.reset()
    returned = [observations, *env.step(np.zeros((N, 3), np.int64))[:3]]
    before = [array.copy() for array in returned]
    env.step(np.full((N, 3), 4))
    assert all(np.array_equal(a, b) for a, b in zip(returned, before, strict=True))


def test_shared_attributes() -> None:
    env = make()
    env.reset()
    assert [info["image"] for info in env.reset_infos] == env._slots.episodes.images.tolist()
    assert env.get_attr("world") == [env.world] * N
    assert env.get_attr("world", [0, 2]) == [env.world] * 2
    assert env.env_is_wrapped(VecMonitor) == [False] * N
    with pytest.raises(AttributeError, match="there is no 'step' here: all episodes run as one batch; of a single"):
        env.env_method("step", 0)


def test_at_least_one_environment() -> None:
    with pytest.raises(RLPruneError, match="0 environments were asked for; at least 1 is needed"):
        make(0)


def test_vec_monitor_adds_up_an_episode_s_rewards() -> None:
    env = VecMonitor(make(max_passes=2, penalty=1.0))
    env.seed(0)
    env.reset()
    again = np.tile([4, 4, 4, 0], (N, 1))
    first = env.step(again)[1]
    _, second, dones, infos = env.step(again)
    assert dones.all()
    for i, info in enumerate(infos):
        assert info["episode"]["l"] == 2
        assert info["episode"]["r"] == pytest.approx(first[i] + second[i], abs=1e-5)


@pytest.mark.parametrize("action", ["levels", "ratios", "profiles"])
def test_ppo_takes_it(action: str) -> None:
    env = VecMonitor(make(action=action, max_passes=2))
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=16, n_epochs=1, seed=0, device="cpu").learn(32)
    assert model.num_timesteps == 32
    assert len(model.ep_info_buffer) > 0


def test_sac_takes_ratios() -> None:
    env = VecMonitor(make(action="ratios"))
    model = SAC("MlpPolicy", env, learning_starts=4, buffer_size=50, batch_size=4, seed=0, device="cpu").learn(12)
    assert model.num_timesteps == 12
    assert model.predict(env.reset(), deterministic=True)[0].shape == (N, 3)
