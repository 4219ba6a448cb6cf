"""What batched environments do, N single ones in Gymnasium's and Stable-Baselines3's own batches do too."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from nets import make_data, make_elastic
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from rlprune.agents import KeepRatioVecEnv
from rlprune.envs import KeepRatioEnv, KeepRatioVectorEnv, World
from rlprune.errors import LevelsError, RLPruneError

NETWORK = make_elastic("residual")
DATA = make_data(30)
N = 3
KINDS = pytest.mark.parametrize("action", ["levels", "ratios", "profiles"])
MODES = pytest.mark.parametrize("mode", list(AutoresetMode))


def gymnasium_s(mode: AutoresetMode, max_episode_steps: int = 4, **settings: Any) -> tuple[Any, Any]:
    """N single environments in Gymnasium's batch, and ours."""
    settings |= {"network": NETWORK, "data": DATA, "max_episode_steps": max_episode_steps}
    theirs = gymnasium.make_vec("rlprune/KeepRatio-v0", N, "sync", vector_kwargs={"autoreset_mode": mode}, **settings)
    assert isinstance(theirs, SyncVectorEnv)
    return theirs, gymnasium.make_vec("rlprune/KeepRatio-v0", N, autoreset_mode=mode.value, **settings)


def stable_baselines_s(**settings: Any) -> tuple[DummyVecEnv, KeepRatioVecEnv]:
    """N single environments in Stable-Baselines3's batch, and ours."""
    dummy = DummyVecEnv([lambda: KeepRatioEnv(NETWORK, DATA, **settings)] * N)
    return dummy, KeepRatioVecEnv(World(NETWORK, DATA, **settings), N)


def check(actual: Any, expected: Any) -> None:
    """The same in every entry, arrays as far as their last bits."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            check(actual[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        for each in zip(actual, expected, strict=True):
            check(*each)
    elif isinstance(expected, np.ndarray) and expected.dtype == object:
        check(list(actual), list(expected))
    elif expected is None:
        assert actual is None
    else:
        np.testing.assert_allclose(actual, expected, atol=1e-5, equal_nan=True)


@KINDS
@MODES
@pytest.mark.parametrize("max_episode_steps", [1, 2, 4])
def test_gymnasium_s_batch_gives_the_same_in_every_mode(
    action: str, mode: AutoresetMode, max_episode_steps: int
) -> None:
    theirs, ours = gymnasium_s(mode, max_episode_steps, action=action, max_passes=3, penalty=(0.1, 0.5))
    assert ours.metadata["autoreset_mode"] == mode
    check(ours.reset(seed=7), theirs.reset(seed=7))
    theirs.action_space.seed(1)
    for _ in range(6):
        chosen = theirs.action_space.sample()
        expected = theirs.step(chosen)
        check(ours.step(chosen), expected)
        over = expected[2] | expected[3]
        if mode == AutoresetMode.DISABLED and over.any():
            with pytest.raises(gymnasium.error.ResetNeeded, match=r"episodes have ended \(\d"):
                ours.step(chosen)
            check(ours.reset(options={"reset_mask": over}), theirs.reset(options={"reset_mask": over}))


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (None, {"image": 7}),
        (3, {"image": 7, "penalty": 0.2}),
        ([4, None, 9], {"penalty": 0.3}),
        ([4, None, 9], {"reset_mask": np.array([True, False, True])}),
        (5, {"reset_mask": np.array([False, True, False]), "image": 2}),
    ],
)
def test_gymnasium_s_batch_takes_the_same_seeds_and_options(seed: Any, options: dict[str, Any]) -> None:
    theirs, ours = gymnasium_s(AutoresetMode.SAME_STEP, penalty=(0.1, 0.5))
    for env in (theirs, ours):
        env.reset(seed=1)
    check(ours.reset(seed=seed, options=dict(options)), theirs.reset(seed=seed, options=dict(options)))
    check(ours.np_random_seed, theirs.np_random_seed)
    check(ours.reset(), theirs.reset())


@KINDS
def test_stable_baselines_s_batch_gives_the_same(action: str) -> None:
    theirs, ours = stable_baselines_s(action=action, max_passes=2, penalty=(0.1, 0.5))
    options = [{"image": 4}, {}, {"penalty": 0.25}]
    for env in (theirs, ours):
        assert env.seed(3) == [3, 4, 5]
        env.set_options(options)  # type: ignore[arg-type]
    check(ours.reset(), theirs.reset())
    check(ours.reset_infos, theirs.reset_infos)
    theirs.action_space.seed(1)
    for _ in range(5):
        chosen = np.stack([theirs.action_space.sample() for _ in range(N)])
        check(ours.step(chosen), theirs.step(chosen))
        check(ours.reset_infos, theirs.reset_infos)
    check(ours.reset(), theirs.reset())


def test_both_answer_for_single_ones_alike() -> None:
    theirs, ours = stable_baselines_s(action="profiles", max_passes=2)
    for env in (theirs, ours):
        env.seed(3)
        env.reset()
        env.set_attr("note", 5, indices=[0, 2])
        assert env.get_attr("note", [2, 0]) == [5, 5]
        assert env.has_attr("action_masks") and not env.has_attr("nothing")
        assert env.get_attr("action_space", 1) == [env.action_space]
        assert env.env_is_wrapped(VecMonitor) == [False] * N
        with pytest.raises(AttributeError):
            env.get_attr("note", 1)
    check(ours.env_method("action_masks", indices=[2, 1]), theirs.env_method("action_masks", indices=[2, 1]))
    with pytest.raises(RLPruneError, match="'world' cannot be set: all episodes of a batch share it"):
        ours.set_attr("world", None)
    sync, batch = gymnasium_s(AutoresetMode.NEXT_STEP, action="profiles", max_passes=2)
    for each in (sync, batch):
        each.reset(seed=2)
        each.set_attr("note", [1, 2, 3])
        assert each.get_attr("note") == (1, 2, 3)
    check(batch.call("action_masks"), sync.call("action_masks"))
    assert [each.bit_generator.state for each in batch.np_random] == [
        each.bit_generator.state for each in sync.np_random
    ]


@pytest.mark.parametrize(("action", "n_choices"), [("profiles", 6), ("levels", 17)])
def test_masks_leave_out_to_accept_before_the_first_pass(action: str, n_choices: int) -> None:
    env = KeepRatioEnv(NETWORK, DATA, action=action, max_passes=2)  # type: ignore[arg-type]
    first = [True] * (n_choices - 1) + [False]
    assert env.action_masks().tolist() == first
    env.reset(seed=0)
    assert env.action_masks().tolist() == first
    env.step(0 if action == "profiles" else np.zeros(4, int))
    assert env.action_masks().all() and len(env.action_masks()) == n_choices
    assert KeepRatioEnv(NETWORK, DATA, action=action).action_masks().all()  # type: ignore[arg-type]
    with pytest.raises(RLPruneError, match="actions of kind 'ratios' have no choices to be masked"):
        KeepRatioEnv(NETWORK, DATA, action="ratios").action_masks()


def test_maskable_ppo_takes_both() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    for env in stable_baselines_s(action="profiles", max_passes=2):
        agent = contrib.MaskablePPO("MlpPolicy", env, n_steps=4, batch_size=6, n_epochs=1, seed=0, device="cpu")
        assert agent.learn(12).num_timesteps == 12


def test_success_is_said_when_an_episode_ends() -> None:
    env = KeepRatioEnv(NETWORK, DATA, max_passes=2)
    env.reset(seed=0)
    assert "is_success" not in env.step(np.zeros(4, int))[4]
    info = env.step(np.array([4, 4, 4, 0]))[4]
    assert info["is_success"] is (info["prediction"] == info["label"])


@pytest.mark.parametrize("make", [KeepRatioVectorEnv, None])
def test_a_batch_s_step_needs_episodes(make: Any) -> None:
    env: Any = stable_baselines_s()[1] if make is None else make(N, NETWORK, DATA)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(np.zeros((N, 3), int))


@pytest.mark.parametrize(
    ("action", "wrong", "message"),
    [
        ("profiles", [1, 2], r"an action has shape \(2,\); \(\) is needed, a single number"),
        ("profiles", 1.0, r"an action is 1\.0, of type float64; whole numbers are needed"),
        ("profiles", True, "an action is True, of type bool"),
        ("profiles", None, "an action is None, of type object"),
        ("profiles", "1", "an action is '1', of type <U1"),
        ("profiles", 5, "an action is outside its space"),
        ("levels", [0, 0], r"an action has shape \(2,\); \(3,\) is needed"),
        ("levels", 0, r"an action has shape \(\); \(3,\) is needed"),
        ("levels", [[0, 0, 0]], r"an action has shape \(1, 3\)"),
        ("levels", [0, [1], 0], "whole numbers are needed"),
        ("levels", [0, 0, 5], "an action is outside its space; its entries go from 0 to below"),
        ("ratios", [0.0, float("nan"), 0.0], "an action is outside its space; ratios are numbers from -1 to 1"),
        ("ratios", [0.0, float("inf"), 0.0], "an action is outside its space"),
        ("ratios", [0.0, 1.1, 0.0], "an action is outside its space"),
    ],
)
def test_actions_of_another_kind_are_refused(action: Any, wrong: Any, message: str) -> None:
    env = KeepRatioEnv(NETWORK, DATA, action=action)
    env.reset(seed=0)
    with pytest.raises(LevelsError, match=message) as caught:
        env.step(wrong)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)
    batch = KeepRatioVectorEnv(N, NETWORK, DATA, action=action)
    batch.reset(seed=0)
    with pytest.raises(LevelsError):
        batch.step([wrong] * N)
    with pytest.raises(LevelsError, match=r"actions have shape .*; \(3, \d\) is needed"):
        batch.step(np.zeros((N + 1, *batch.single_action_space.shape), int))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"autoreset_mode": "never"}, "autoreset_mode='never': give one of NextStep, SameStep, Disabled"),
        ({"max_episode_steps": 0}, "max_episode_steps=0: give a whole number from 1"),
        ({"num_envs": 0}, "0 environments were asked for; at least 1 is needed"),
        ({"num_envs": 2.5}, "n_envs=2.5: give a whole number"),
    ],
)
def test_a_batch_s_own_arguments_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        KeepRatioVectorEnv(**{"num_envs": N, "network": NETWORK, "data": DATA} | settings)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": [1, 2]}, r"seed=\[1, 2\]: give a whole number, or a list of one for each of 3 environments"),
        ({"seed": "x"}, "seed='x': give a whole number"),
        ({"options": {"reset_mask": [True] * N}}, "give an array of 3 bool, at least one of them True"),
        ({"options": {"reset_mask": np.zeros(N, bool)}}, "give an array of 3 bool, at least one of them True"),
        ({"options": {"image": 99}}, "allowed are 'image', an index from 0 to 29"),
    ],
)
def test_wrong_seeds_and_options_change_nothing(wrong: dict[str, Any], message: str) -> None:
    env, same = (KeepRatioVectorEnv(N, NETWORK, DATA) for _ in range(2))
    for each in (env, same):
        each.reset(seed=1)
    with pytest.raises(RLPruneError, match=message):
        env.reset(**wrong)
    chosen = np.zeros((N, 3), int)
    check(env.step(chosen)[0], same.step(chosen)[0])
