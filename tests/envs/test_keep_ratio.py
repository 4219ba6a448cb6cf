from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import make_data, make_elastic
from stable_baselines3.common import env_checker as sb3

import rlprune.envs
from rlprune.envs import KeepRatioEnv
from rlprune.envs.logit_cache import LazyTable
from rlprune.envs.world import World
from rlprune.errors import LevelsError, RLPruneError
from rlprune.policies.observations import Observer
from rlprune.profiles.cost import Cost

NETWORK = make_elastic("residual")
DATA = make_data(30)
COST = Cost(NETWORK)
BOOK = [[0, 0, 0], [2, 2, 2], [4, 4, 4]]
settled = pytest.mark.parametrize("max_passes", [1, 2, 3])
actions = pytest.mark.parametrize("action", ["levels", "ratios", "profiles"])


def make(**settings: Any) -> KeepRatioEnv:
    return KeepRatioEnv(NETWORK, DATA, **settings)


@torch.no_grad()
def right(image: int, levels: Any) -> bool:
    """Whether the slice of these levels classifies an image correctly."""
    logits = NETWORK.slice(torch.as_tensor(levels))(DATA.normalised([image]))
    return int(logits.argmax()) == int(DATA.labels[image])


def macs(levels: Any, again: bool = False) -> int:
    return int(COST.of(torch.as_tensor(levels)).macs - COST.stem.macs * again)


def params(levels: Any) -> int:
    return int(COST.of(torch.as_tensor(levels)).params)


@actions
@settled
def test_both_checkers_are_content(action: str, max_passes: int) -> None:
    env = gymnasium.make("rlprune/KeepRatio-v0", network=NETWORK, data=DATA, action=action, max_passes=max_passes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
        sb3.check_env(env.unwrapped)


@pytest.mark.parametrize(
    ("action", "max_passes", "space"),
    [
        ("levels", 1, spaces.MultiDiscrete([5, 5, 5])),
        ("levels", 2, spaces.MultiDiscrete([5, 5, 5, 2])),
        ("ratios", 1, spaces.Box(-1, 1, (3,))),
        ("ratios", 3, spaces.Box(-1, 1, (4,))),
        ("profiles", 1, spaces.Discrete(5)),
        ("profiles", 2, spaces.Discrete(6)),
    ],
)
def test_action_spaces(action: str, max_passes: int, space: spaces.Space[Any]) -> None:
    assert make(action=action, max_passes=max_passes).action_space == space


def test_the_observation_space_is_the_observer_s() -> None:
    space = make(max_passes=2, pool=3).observation_space
    assert isinstance(space, spaces.Box)
    assert space.shape == (16 * 9 + 5 + 4,)
    assert space.dtype == np.float32
    assert (space.low.min(), space.high.max()) == (-10, 10)


@settings(max_examples=20, deadline=None)
@given(
    image=st.integers(0, 29),
    levels=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    penalty=st.floats(0, 2),
    kind=st.sampled_from(["params", "macs"]),
)
def test_the_reward_is_correctness_minus_the_price_of_compute(
    image: int, levels: list[int], penalty: float, kind: str
) -> None:
    env = make(penalty=penalty, cost=kind)
    env.reset(options={"image": image})
    _, reward, terminated, truncated, info = env.step(np.array(levels))
    share = {
        "params": params(levels) / int(COST.dense.params),
        "macs": macs(levels) / int(COST.dense.macs),
    }
    assert reward == pytest.approx(right(image, levels) - penalty * share[kind], abs=1e-5)
    assert (terminated, truncated) == (True, False)
    assert (info["active_params"], info["active_macs"]) == pytest.approx((share["params"], share["macs"]), rel=1e-5)
    assert info["accuracy"] == right(image, levels)


def test_the_control_variate_subtracts_the_whole_network_s_correctness() -> None:
    plain, controlled = make(), make(control_variate=True)
    for image in range(10):
        rewards = []
        for env in (plain, controlled):
            env.reset(options={"image": image})
            rewards.append(env.step(np.array([0, 1, 2]))[1])
        assert rewards[0] - rewards[1] == pytest.approx(float(right(image, NETWORK.full)), abs=1e-6)


def test_every_pass_is_paid_for_and_the_stem_once() -> None:
    env = make(max_passes=3, penalty=1.0)
    observation, info = env.reset(options={"image": 3})
    assert info == {"image": 3, "label": int(DATA.labels[3])}
    dense, spent = int(COST.dense.macs), int(COST.stem.macs)
    for n_pass, levels in enumerate(([0, 0, 0], [1, 2, 3], [4, 4, 4]), start=1):
        assert observation[-2:] == pytest.approx([spent / dense / 6, (n_pass - 1) / 3], abs=1e-6)
        observation, reward, terminated, _, info = env.step(np.array([*levels, 0]))
        spent += macs(levels, again=True)
        gain = right(3, levels) if terminated else 0
        assert reward == pytest.approx(gain - macs(levels, again=n_pass > 1) / dense, abs=1e-6)
        assert (terminated, info["passes"]) == (n_pass == 3, n_pass)


def test_every_decision_is_paid_for_also_the_one_to_accept() -> None:
    env = make(max_passes=2, penalty=1.0, policy_cost=(50, 1000))
    env.reset(options={"image": 5})
    dense = int(COST.dense.macs)
    _, reward, terminated, _, info = env.step(np.array([0, 0, 0, 1]))  # nothing to accept yet: it runs
    assert (reward, terminated) == (pytest.approx(-(macs([0, 0, 0]) + 1000) / dense, abs=1e-6), False)
    _, reward, terminated, truncated, info = env.step(np.array([4, 4, 4, 1]))
    assert reward == pytest.approx(right(5, [0, 0, 0]) - 1000 / dense, abs=1e-6)
    assert (terminated, truncated, info["passes"]) == (True, False, 1)
    assert np.isnan(info["keep_ratios"]).all()
    assert info["active_params"] == pytest.approx(50 / int(COST.dense.params))


def test_accepting_before_the_first_pass_runs_the_cheapest_profile() -> None:
    env = make(action="profiles", codebook=BOOK, max_passes=2)
    env.reset(options={"image": 0})
    accepting = env.step(3)
    env.reset(options={"image": 0})
    first = env.step(0)
    assert np.array_equal(accepting[0], first[0])
    assert accepting[1:4] == first[1:4]
    assert accepting[4]["keep_ratios"].tolist() == [0, 0, 0]


def test_beliefs_are_those_of_the_last_pass() -> None:
    env = make(max_passes=2)
    env.reset(options={"image": 2})
    observation = env.step(np.array([3, 1, 2, 0]))[0]
    with torch.no_grad():
        probabilities = NETWORK.slice([3, 1, 2])(DATA.normalised([2])).softmax(1)
    assert observation[-9:-4] == pytest.approx(probabilities.sort(descending=True).values[0].numpy(), abs=1e-5)


def test_combined_beliefs_are_those_of_all_passes_the_last_of_which_counts_most() -> None:
    env, passes = make(max_passes=3, combine=0.5), ([4, 4, 4], [3, 1, 2], [0, 1, 0])  # wide before narrow
    env.reset(options={"image": 2})
    for n, levels in enumerate(passes, start=1):
        observation, *_, info = env.step(np.array([*levels, 0]))
        with torch.no_grad():
            logits = torch.cat([NETWORK.slice(each)(DATA.normalised([2])) for each in passes[:n]])
        shares = torch.tensor([[1.0], [1 / 3, 2 / 3], [1 / 9, 2 / 9, 2 / 3]][n - 1])
        mean = shares @ logits
        expected = mean.softmax(0).sort(descending=True).values.numpy()
        assert observation[-9:-4] == pytest.approx(expected, abs=1e-5)
        assert info["prediction"] == int(mean.argmax())


def test_kinds_of_action_that_say_the_same_do_the_same() -> None:
    levels, ratios, profiles = make(), make(action="ratios"), make(action="profiles", codebook=BOOK)
    outcomes = []
    for env, action in ((levels, np.array([2, 2, 2])), (ratios, np.zeros(3, np.float32)), (profiles, 1)):
        env.reset(options={"image": 4})
        outcomes.append(env.step(action))
    for outcome in outcomes[1:]:
        assert outcome[0] == pytest.approx(outcomes[0][0], abs=1e-5)
        assert outcome[1] == pytest.approx(outcomes[0][1], abs=1e-6)
        assert outcome[4]["prediction"] == outcomes[0][4]["prediction"]


def test_what_is_remembered_is_what_is_computed_anew() -> None:
    env = make(action="profiles", codebook=BOOK)
    for image in (0, 7, 0, 29):
        for profile in (2, 0, 2):
            env.reset(options={"image": image})
            info = env.step(profile)[4]
            with torch.no_grad():
                logits = NETWORK(DATA.normalised([image]), torch.tensor([BOOK[profile]]))
            assert info["prediction"] == int(logits.argmax())
            known = env.world.logit_cache.of_profiles(*torch.tensor([[image], [profile]]))
            assert torch.allclose(known, logits, atol=1e-5)


def test_a_table_computes_each_row_once_and_always_beside_the_same_others() -> None:
    asked: list[tuple[int, list[int]]] = []

    def compute(table: int, items: torch.Tensor) -> torch.Tensor:
        asked.append((table, items.tolist()))
        return table + items[:, None].float()

    tables = LazyTable(2, 70, 1, compute, keep=True)
    ones = torch.ones(3, dtype=torch.int64)
    assert tables(ones, torch.tensor([69, 1, 69])).flatten().tolist() == [70, 2, 70]
    assert tables(ones, torch.tensor([1, 64, 3])).flatten().tolist() == [2, 65, 4]
    assert tables(torch.tensor([0, 1, 1]), torch.tensor([68, 40, 2])).flatten().tolist() == [68, 41, 3]
    blocks = [list(range(32)), list(range(32, 64)), list(range(64, 70))]
    assert asked == [(1, blocks[0]), (1, blocks[2]), (0, blocks[2]), (1, blocks[1])]


@actions
def test_episodes_end_by_termination_within_max_passes(action: str) -> None:
    env = make(action=action, max_passes=3)
    env.action_space.seed(0)
    for seed in range(20):
        env.reset(seed=seed)
        for n_pass in range(1, 4):
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            assert not truncated
            assert info["passes"] <= n_pass
            if terminated:
                break
        assert terminated


def test_a_step_needs_an_episode() -> None:
    env = make()
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(np.array([0, 0, 0]))
    env.reset()
    env.step(np.array([0, 0, 0]))
    with pytest.raises(gymnasium.error.ResetNeeded, match="after an episode has ended"):
        env.step(np.array([0, 0, 0]))


@pytest.mark.parametrize("options", [{"image": 30}, {"image": -1}, {"image": 1.0}, {"number": 3}, {"image": None}])
def test_options_name_an_image_that_exists(options: dict[str, Any]) -> None:
    with pytest.raises(RLPruneError, match=r"allowed are 'image', an index from 0 to 29, and 'penalty'"):
        make().reset(options=options)


def test_options_take_a_numpy_index() -> None:
    assert make().reset(options={"image": np.int64(29)})[1]["image"] == 29


def test_a_seed_fixes_the_images() -> None:
    env, other = make(), make()

    def images(env: KeepRatioEnv) -> list[int]:
        return [env.reset(seed=7)[1]["image"], *(env.reset()[1]["image"] for _ in range(5))]

    assert images(env) == images(other) == images(env)


def test_episodes_draw_all_images_alike() -> None:
    env = make()
    env.reset(seed=0)
    counts = np.bincount([env.reset()[1]["image"] for _ in range(3000)], minlength=30)
    # 100 each is expected; chi-squared of 29 degrees of freedom is below 58 with a probability of 99.9 %
    assert ((counts - 100) ** 2 / 100).sum() < 58


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"cost": "latency"}, RLPruneError, "cost kind 'latency' is unknown; allowed: params, macs"),
        (
            {"penalty": -1.0},
            RLPruneError,
            r"penalty is -1\.0; a number of 0 or more, or a range \(lowest, highest\), is needed",
        ),
        ({"penalty": float("nan")}, RLPruneError, "penalty is nan"),
        ({"penalty": (0.0, 1.0)}, RLPruneError, r"penalties from 0\.0 to 1\.0: two numbers above 0, ascending, are"),
        ({"penalty": (1.0, 0.1)}, RLPruneError, r"penalties from 1\.0 to 0\.1: two numbers"),
        ({"penalty": (0.1, float("inf"))}, RLPruneError, "penalties from 0.1 to inf: two numbers"),
        ({"penalty": (0.1,)}, RLPruneError, r"penalties \(0\.1,\): a range has two ends"),
        ({"max_passes": 4}, LevelsError, "max_passes is 4"),
        ({"action": "widths"}, LevelsError, "action kind 'widths' is unknown"),
        ({"action": "profiles", "codebook": [[5, 0, 0]]}, LevelsError, "level 5 of group 0"),
    ],
)
def test_wrong_settings(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**wrong)


def test_an_observer_for_other_passes_is_refused() -> None:
    observer = Observer.fit(NETWORK, DATA, max_passes=2)
    with pytest.raises(RLPruneError, match="the observer has max_passes=2, the environment max_passes=1"):
        make(observer=observer)
    with pytest.raises(RLPruneError, match=r"the observer has combine=0\.0, the environment combine=0\.5"):
        make(observer=observer, max_passes=2, combine=0.5)


def test_images_are_needed() -> None:
    with pytest.raises(RLPruneError, match="the image set is empty"):
        World(NETWORK, DATA.subset(slice(0, 0)))


def test_one_image_is_a_world() -> None:
    env = KeepRatioEnv(NETWORK, DATA.subset(slice(0, 1)))
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["image"] == 0


def test_gymnasium_makes_it_by_its_name_alone() -> None:
    env = gymnasium.make("rlprune.envs:rlprune/KeepRatio-v0", network=NETWORK, data=DATA, max_passes=2)
    assert isinstance(env.unwrapped, KeepRatioEnv)
    assert env.spec is not None
    assert env.spec.id == rlprune.envs.ENV_ID
    assert env.spec.max_episode_steps == 4  # Gymnasium cuts off no episode, which have 3 steps at most
