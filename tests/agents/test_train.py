"""What a training learns in a world with a known optimum, and what it refuses to learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lamp import SHORT, lamp_settings, make_lamp, make_lamp_data, same, train_lamp
from stable_baselines3 import PPO
from torch import nn

from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.agents.warm_start import CHECKPOINT
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import NotFiniteError, RLPruneError
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost, mlp_cost
from rlprune.storage.policies import load_policy
from rlprune.utils.finite import not_finite_in


def shares(policy: Policy) -> tuple[float, float, float, float]:
    """Multiply-adds of the narrow and the whole profile, the stem and the policy, over the dense network's."""
    network = make_lamp()
    cost = Cost(network)
    narrow, whole = cost.of(torch.tensor([[0], [1]])).macs
    amounts = (narrow, whole, cost.stem.macs, mlp_cost(policy.network).macs)
    return tuple(float(amount / cost.dense.macs) for amount in amounts)  # type: ignore[return-value]


def reward(folder: Path) -> float:
    """Of the last validation sweep."""
    return float(load_policy(folder / "policy").metadata["validation"]["reward"])


def test_each_profile_of_this_world_is_right_where_the_other_is_wrong() -> None:
    network, data = make_lamp(), make_lamp_data(6)
    for level, right in ((0, [True, False] * 3), (1, [False, True] * 3)):
        predicted = network(data.normalised(), network.uniform(level)).argmax(1)
        assert (predicted == data.labels).tolist() == right


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_which_profile_an_image_needs(tmp_path: Path, seed: int) -> None:
    settings = lamp_settings(max_passes=1, pool=1, seed=seed)
    policy = train_lamp(tmp_path, settings)
    narrow, whole, _, decision = shares(policy)
    best_static = 0.5 - settings.penalty * (narrow + decision)
    optimum = 1 - settings.penalty * ((narrow + whole) / 2 + decision)
    assert reward(tmp_path) - best_static >= 0.9 * (optimum - best_static)
    assert reward(tmp_path) <= optimum + 1e-5


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_when_to_look_twice_from_what_the_first_pass_believed(tmp_path: Path, seed: int) -> None:
    settings = lamp_settings(max_passes=2, pool=0, seed=seed)  # pool=0: the image itself is not shown
    policy = train_lamp(tmp_path, settings)
    narrow, whole, stem, decision = shares(policy)
    best_static = 0.5 - settings.penalty * (narrow + 2 * decision)
    optimum = 1 - settings.penalty * (narrow + 2 * decision + (whole - stem) / 2)
    assert reward(tmp_path) - best_static >= 0.9 * (optimum - best_static)
    assert reward(tmp_path) <= optimum + 1e-5


@pytest.mark.parametrize("wrong", [{"gamma": float("nan")}, {"policy_kwargs": {"log_std_init": float("inf")}}])
def test_arguments_of_ppo_that_are_not_finite_are_refused_at_once(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(RLPruneError, match=r"ppo has a number that is not finite: .*(nan|inf)\S*; give finite ones"):
        train_lamp(tmp_path, lamp_settings(), ppo=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_nan_logits_is_refused_before_training(tmp_path: Path) -> None:
    network, data = make_lamp(), make_lamp_data(16)
    with torch.no_grad():
        network.body.get_submodule("linear").weight[0] = float("nan")
    with pytest.raises(NotFiniteError, match="logits are not finite in float32; look for NaN in the weights"):
        train_policy(network, data, data, tmp_path, lamp_settings(), progress=False)
    assert not (tmp_path / "policy").exists() and not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("after", [0, 1024])
def test_a_policy_loss_that_is_not_finite_stops_training(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = PPO.train

    def spoilt(self: PPO) -> None:
        if self.num_timesteps > after:
            self.ent_coef = float("nan")
        train(self)

    monkeypatch.setattr(PPO, "train", spoilt)
    message = r"the policy's loss is not finite, after \d+ steps; .*the last checkpoint, if there is one, stays"
    with pytest.raises(NotFiniteError, match=message):
        train_lamp(tmp_path, lamp_settings(**SHORT | {"total_steps": 4096}))
    assert (tmp_path / CHECKPOINT).exists() is (after > 0)
    if after:
        assert not_finite_in(PPO.load(tmp_path / CHECKPOINT).policy) is None


@pytest.mark.parametrize("combine", [0.0, 0.5])
def test_what_it_learnt_is_what_is_deployed(tmp_path: Path, combine: float) -> None:
    settings, data = lamp_settings(max_passes=2, combine=combine, pool=0), make_lamp_data(16)
    policy = train_lamp(tmp_path, settings)
    assert policy.observer.combine == combine
    predicted = DynamicCNN(make_lamp(), policy, data.mean, data.std, data.classes)(data.images)
    assert torch.equal(predicted.labels, data.labels)
    assert predicted.profiles.tolist() == [[0, -1], [0, 1]] * 8


def test_one_policy_learns_every_penalty_of_a_range(tmp_path: Path) -> None:
    settings, data = (
        lamp_settings(max_passes=2, pool=0, penalty_range=(0.1, 4.0), total_steps=20480),
        make_lamp_data(16),
    )
    dynamic = DynamicCNN(make_lamp(), train_lamp(tmp_path, settings), data.mean, data.std, data.classes)
    assert torch.equal(dynamic(data.images, penalty=0.1).labels, data.labels)
    assert dynamic(data.images, penalty=0.1).profiles.tolist() == [[0, -1], [0, 1]] * 8
    assert dynamic(data.images, penalty=4.0).profiles.tolist() == [[0, -1]] * 16
    for penalty, share in dynamic.source_policy.budgets.tolist()[:: len(dynamic.source_policy.budgets) - 1]:
        macs = dynamic(data.images, penalty=penalty).macs.double().mean()
        assert float(macs / dynamic.prices.dense.macs) == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize("action", ["profiles", "levels", "ratios"])
def test_the_same_seed_gives_the_same_policy_and_another_another(tmp_path: Path, action: Any) -> None:
    first, again, other = (
        train_lamp(tmp_path / str(run), lamp_settings(action=action, seed=seed, **SHORT))
        for run, seed in enumerate((0, 0, 1))
    )
    assert same(first, again)
    assert not torch.equal(first.network[0].weight, other.network[0].weight)


def test_a_higher_price_buys_less(tmp_path: Path) -> None:
    cheap = train_lamp(tmp_path, lamp_settings(max_passes=1, pool=1, penalty=5.0))
    data = make_lamp_data(16)
    predicted = DynamicCNN(make_lamp(), cheap, data.mean, data.std, data.classes)(data.images)
    assert predicted.profiles.unique().tolist() == [0]


def test_arguments_of_ppo_go_before_the_settings(tmp_path: Path) -> None:
    ppo = {"clip_range": 0.07, "gae_lambda": 0.5, "n_epochs": 2, "policy_kwargs": {"activation_fn": nn.ReLU}}
    policy = train_lamp(tmp_path, lamp_settings(n_epochs=3, **SHORT), ppo=ppo)
    agent = PPO.load(tmp_path / "checkpoint.zip")
    assert (agent.clip_range(1.0), agent.gae_lambda, agent.n_epochs, agent.gamma) == (0.07, 0.5, 2, 1.0)
    assert policy.activation == "ReLU" and policy.sizes[1:-1] == (16,)
    assert json.loads((tmp_path / "settings.json").read_text())["ppo"] == repr(ppo)


@pytest.mark.parametrize(
    ("ppo", "message"),
    [
        ({"clip": 0.1}, "PPO has no argument 'clip'; allowed: learning_rate, .*clip_range"),
        ({"env": None}, "PPO has no argument 'env'; allowed: learning_rate"),
        ({"clip_range": "wide"}, r"PPO does not take {'clip_range': 'wide'}: "),
        ({"policy_kwargs": {"net_arch": [8]}}, "ppo has a net_arch; give the widths as hidden"),
    ],
)
def test_arguments_that_ppo_does_not_have_are_named(tmp_path: Path, ppo: Any, message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        train_lamp(tmp_path, lamp_settings(**SHORT), ppo=ppo)
    assert not (tmp_path / "settings.json").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"total_steps": 0}, "total_steps=0: give a whole number of 1 or more"),
        ({"n_envs": 0}, "n_envs=0: give a whole number of 1 or more"),
        (
            {"batch_size": 100},
            r"batch_size=100, n_envs=256, n_steps=8: give a batch_size that divides .*, which is 2048",
        ),
        ({"batch_size": 1}, "batch_size=1: give a whole number of 2 or more"),
        ({"cost": "time"}, "cost='time': give one of params, macs, latency"),
        (
            {"penalty": -0.1},
            r"penalty=-0\.1: give a number of 0 or more",
        ),
        ({"max_passes": 4}, "max_passes=4: give a whole number from 1 to 3"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0: give a number above 0"),
        ({"pool": -1}, r"pool=-1: give a whole number of 0 or more"),
        ({"penalty_range": (0.5, 0.1)}, r"penalty_range=\(0\.5, 0\.1\): give two numbers above 0, ascending, or none"),
        (
            {"penalty_range": (0.1, 0.5), "action": "levels"},
            r"penalty_range=\(0\.1, 0\.5\), action='levels': a range needs action='profiles'",
        ),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        PolicySettings(**wrong)
