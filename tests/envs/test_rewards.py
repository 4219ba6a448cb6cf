"""Rewards of a user's own, and the default ones, which are written in the same protocol."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from nets import make_data, make_elastic

from rlprune.envs import ControlVariate, CorrectMinusCost, KeepRatioEnv, KeepRatioVectorEnv, Step, World
from rlprune.errors import RLPruneError
from rlprune.policies.observations import Observer

NETWORK, DATA = make_elastic("residual"), make_data(30)
BOOK = [[0, 0, 0], [2, 2, 2], [4, 4, 4]]
RULES: dict[str, Any] = {"action": "profiles", "codebook": BOOK, "max_passes": 2, "penalty": 0.5}


def rewards(world: World) -> torch.Tensor:
    """Of three first steps, of which the last accepts nothing, and of three second ones, all of which end."""
    episodes = world.begin(torch.tensor([3, 4, 5]))
    return torch.cat([world.step(episodes, np.array(actions)).rewards for actions in ([0, 1, 2], [3, 2, 3])])


@pytest.mark.parametrize(("default", "by_name"), [(False, "CorrectMinusCost"), (True, "ControlVariate")])
def test_the_default_rewards_are_two_classes(default: bool, by_name: str) -> None:
    expected = rewards(World(NETWORK, DATA, **RULES, control_variate=default))
    of_class = {"CorrectMinusCost": CorrectMinusCost, "ControlVariate": ControlVariate}[by_name]
    assert isinstance(World(NETWORK, DATA, **RULES, control_variate=default).reward, of_class)
    for given in (of_class(), of_class, f"rlprune.envs.rewards:{by_name}"):
        assert torch.equal(rewards(World(NETWORK, DATA, **RULES, reward=given)), expected)


def test_a_reward_is_told_everything_of_a_step() -> None:
    world = World(
        NETWORK, DATA, **RULES, cost="params", reward={"class": "mine:SquaredCost", "settings": {"weight": 2}}
    )
    episodes = world.begin(torch.tensor([3, 4]))
    outcome = world.step(episodes, np.array([0, 2]))
    assert outcome.rewards.tolist() == pytest.approx((-2 * 0.5 * outcome.params.square()).tolist())
    last = world.step(episodes, np.array([3, 3]))
    sure = episodes.logits.softmax(1)[torch.arange(2), DATA.labels[[3, 4]]]
    assert last.done.all() and last.rewards.tolist() == pytest.approx(sure.tolist())  # accepting costs nothing here


@dataclass
class Watching:
    """Keeps what it is shown."""

    def __call__(self, step: Step) -> torch.Tensor:
        self.seen = step
        return step.macs * 0


def test_the_whole_network_runs_only_where_a_reward_asks() -> None:
    reward = Watching()
    world = World(NETWORK, DATA, **RULES | {"action": "levels", "codebook": None}, reward=reward)
    world.step(world.begin(torch.tensor([7])), np.array([[0, 1, 2, 0]]))
    assert not world.logit_cache._of_whole._known.any()
    with torch.no_grad():
        expected = NETWORK(DATA.normalised([7]), NETWORK.full)
    assert torch.allclose(reward.seen.whole_logits, expected, atol=1e-5)
    assert (reward.seen.images.tolist(), reward.seen.passes.tolist()) == ([7], [1])
    assert reward.seen.levels.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda step: step.correct, r"gives torch\.bool \(2,\) for 2 episodes; float32 \(2,\) is needed"),
        (lambda step: step.price.sum(), r"gives torch\.float32 \(\) for 2 episodes"),
        (lambda step: 1.0, "gives a float for 2 episodes"),
        (lambda step: step.price / 0, "gives numbers that are not finite"),
        (lambda step: step.colour, r"failed \(AttributeError: 'Step' object has no attribute 'colour'"),
    ],
)
def test_a_reward_is_tried_when_the_environment_is_made(gives: Callable[[Step], Any], message: str) -> None:
    wrong = type("Wrong", (CorrectMinusCost,), {"__call__": lambda _, step: gives(step)})
    with pytest.raises(RLPruneError, match=f"the reward .*Wrong {message}") as caught:
        KeepRatioEnv(NETWORK, DATA, reward=wrong)
    assert "\n" not in str(caught.value)


def test_two_rewards_or_two_observations_are_refused() -> None:
    with pytest.raises(RLPruneError, match=r"control_variate=True and reward=\.\.\. exclude each other"):
        KeepRatioEnv(NETWORK, DATA, control_variate=True, reward="mine:SquaredCost")
    with pytest.raises(RLPruneError, match="an observer and an observation are given; give one"):
        KeepRatioEnv(NETWORK, DATA, observer=Observer.fit(NETWORK, DATA), observation="mine:Doubt")


def test_the_checker_is_content_and_the_batch_equals_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # the checker tries every way of rendering
    own: dict[str, Any] = {"reward": "mine:SquaredCost", "observation": {"class": "mine:Brightness", "settings": {}}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(
            gymnasium.make("rlprune.envs:rlprune/KeepRatio-v0", network=NETWORK, data=DATA, **RULES, **own).unwrapped
        )
    batch = KeepRatioVectorEnv(3, NETWORK, DATA, **RULES, **own)
    singles = [KeepRatioEnv(NETWORK, DATA, **RULES, **own) for _ in range(3)]
    first, _ = batch.reset(seed=5)
    alone = [env.reset(seed=5 + i)[0] for i, env in enumerate(singles)]
    assert np.allclose(first, alone, atol=1e-5) and first.shape == (3, 18)
    seen, gained, *_ = batch.step(np.array([0, 1, 2]))
    steps = [env.step(action) for action, env in enumerate(singles)]
    assert np.allclose(seen, [step[0] for step in steps], atol=1e-5)
    assert gained == pytest.approx([step[1] for step in steps], abs=1e-5)
