from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from rlprune.agents.algorithms.arguments import check_arguments
from rlprune.agents.algorithms.kinds import find_algorithm
from rlprune.errors import RLPruneError


def check_ppo(ppo: dict[str, Any], n_envs: int, *, continuous: bool = False) -> None:
    check_arguments(find_algorithm("ppo"), ppo, n_envs, "ratios" if continuous else "profiles", "ppo")


@pytest.mark.parametrize(
    ("ppo", "message"),
    [
        ({"gamma": 2}, r"PPO does not take {'gamma': 2}: give a number from 0 to 1$"),
        ({"clip_range": -1}, r"PPO does not take {'clip_range': -1}: give a number above 0"),
        ({"n_epochs": "x"}, r"PPO does not take {'n_epochs': 'x'}: give a whole number of 1 or more$"),
        ({"n_epochs": True}, r"{'n_epochs': True}: give a whole number"),
        ({"learning_rate": 1e30}, r"PPO does not take {'learning_rate': 1e\+30}: give 100 at most$"),
        ({"learning_rate": [1]}, r"PPO does not take {'learning_rate': \[1\]}: give a number of 0 or more"),
        ({"seed": -1}, r"PPO does not take {'seed': -1}: give a whole number from 0 to 4294967295$"),
        ({"device": "meta"}, r"PPO does not take {'device': 'meta'}: it cannot be used here"),
        ({"n_steps": 60_000}, r"with n_envs=256 that is more than 4194304 decisions, all kept in memory; give fewer$"),
        ({"policy_kwargs": {"arch": 3}}, r"PPO's policy has no argument 'arch'; allowed: net_arch, activation_fn"),
        ({"policy_kwargs": {"optimizer_kwargs": {"x": 3}}}, r"PPO does not take .*'x'"),
        ({"use_sde": True}, r"PPO does not take {'use_sde': True}: "),
        ({"_init_setup_model": False}, r"PPO does not take {'_init_setup_model': False}: give one of True$"),
    ],
)
def test_what_ppo_cannot_take_is_named_with_what_it_can(ppo: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        check_ppo(ppo, 256)


@pytest.mark.parametrize(
    "ppo",
    [
        {},
        {"clip_range": 0.1, "clip_range_vf": None, "target_kl": 0.02, "device": "auto", "verbose": 1},
        {"learning_rate": lambda left: 1e-3 * left, "policy_kwargs": {"activation_fn": nn.ReLU, "ortho_init": False}},
    ],
)
def test_what_ppo_takes_passes(ppo: dict[str, Any]) -> None:
    check_ppo(ppo, 8)


def test_exploration_by_states_needs_actions_that_are_numbers() -> None:
    check_ppo({"use_sde": True}, 8, continuous=True)
