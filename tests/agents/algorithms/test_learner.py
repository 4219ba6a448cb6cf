"""Other algorithms than PPO learn, are checked, and go on after an interruption as if there had been none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from events import read_events
from interruptions import Interrupted, at_the_first_checkpoint
from lamp import lamp_settings, make_lamp, make_lamp_data, train_lamp
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise
from torch import nn

from rlprune.agents import KeepRatioVecEnv
from rlprune.agents.algorithms import NAMES, Learner, find_algorithm
from rlprune.agents.algorithms.named import make_callbacks
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import MissingExtraError, RLPruneError
from rlprune.storage.policies import load_policy
from rlprune.utils import imports

contrib = pytest.importorskip("sb3_contrib")

TINY: dict[str, Any] = {"total_steps": 128, "n_envs": 8, "n_steps": 4, "batch_size": 32, "validate_every": 64}
ONCE = TINY | {"total_steps": 32}
MASKS = hasattr(KeepRatioVecEnv, "action_masks")
FEW = {"policy_kwargs": {"n_quantiles": 5}}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("algorithm", "arguments", "change"),
    [
        ("trpo", {}, {"action": "levels"}),
        pytest.param("maskable_ppo", {}, {}, marks=pytest.mark.skipif(not MASKS, reason="there are no masks")),
        ("dqn", {"buffer_size": 96, "train_freq": 2, "n_steps": 2}, {"validate_every": 48}),
        (DQN, {}, {"penalty_range": (0.1, 0.5)}),
        ("qrdqn", FEW, {}),
        ("sac", {"use_sde": False}, {"action": "ratios"}),
        ("td3", {}, {"action": "ratios"}),
    ],
)
def test_a_run_that_is_interrupted_ends_as_one_that_is_not(
    algorithm: Any, arguments: dict[str, Any], change: dict[str, Any], tmp_path: Path
) -> None:
    settings = lamp_settings(**TINY | change)
    asked: dict[str, Any] = {"algorithm": algorithm, "arguments": arguments}
    policy = train_lamp(tmp_path / "whole", settings, **asked)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        at_the_first_checkpoint(patch)
        train_lamp(tmp_path / "run", settings, **asked)
    torch.manual_seed(1)  # what another process would find
    np.random.seed(1)
    train_lamp(tmp_path / "run", settings, resume=True, **asked)
    assert contents(tmp_path / "run" / "policy") == contents(tmp_path / "whole" / "policy")
    found = read_events(tmp_path / "run")
    assert found == read_events(tmp_path / "whole")
    assert len({event[:2] for event in found}) == len(found)
    data = make_lamp_data(4)
    assert len(DynamicCNN(make_lamp(), policy, data.mean, data.std, data.classes)(data.images).labels) == 4


@pytest.mark.parametrize(("algorithm", "arguments"), [("a2c", {}), ("dqn", {}), ("qrdqn", FEW)])
def test_it_learns_which_profile_an_image_needs(algorithm: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    settings = lamp_settings(max_passes=1, pool=1, total_steps=3072, n_envs=32, batch_size=64)
    train_lamp(tmp_path, settings, algorithm=algorithm, arguments=arguments)
    assert load_policy(tmp_path / "policy").metadata["validation"]["accuracy"] == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"algorithm": "dqn", "action": "levels"}, r"DQN cannot choose levels, only profiles; give such an action, or"),
        ({"algorithm": "sac"}, r"SAC cannot choose profiles, only ratios; give such"),
        (
            {"algorithm": "maskable_ppo", "action": "ratios"},
            "MaskablePPO cannot choose ratios, only profiles or levels",
        ),
        ({"algorithm": "rainbow"}, r"algorithm is 'rainbow'; give one of ppo, a2c, trpo, maskable_ppo, dqn, qrdqn,"),
        ({"algorithm": BaseAlgorithm}, "algorithm is 'BaseAlgorithm'; give one of ppo"),
        ({"algorithm": contrib.ARS}, "algorithm is 'ARS'; give one of ppo"),
        ({"algorithm": 3}, "algorithm is 3; give one of ppo"),
        ({"algorithm": contrib.RecurrentPPO}, "RecurrentPPO does not take|cannot be exported"),
        (
            {"algorithm": "a2c", "ppo": {"gamma": 1.0}},
            r"ppo={'gamma': 1\.0} goes with algorithm='ppo'; give arguments=",
        ),
        ({"arguments": {"gamma": 1.0}, "ppo": {"gamma": 1.0}}, "ppo and arguments are the same for algorithm='ppo'"),
        (
            {"algorithm": "dqn", "arguments": {"clip_range": 0.1}},
            "DQN has no argument 'clip_range'; allowed: learning_rate",
        ),
        (
            {"algorithm": "dqn", "arguments": {"buffer_size": 0}},
            r"DQN does not take {'buffer_size': 0}: give a whole num",
        ),
        (
            {"algorithm": "dqn", "arguments": {"tau": 2}},
            r"DQN does not take {'tau': 2}: give a number above 0, up to 1",
        ),
        ({"algorithm": "dqn", "arguments": {"learning_starts": 128}}, "nothing would be learnt; give fewer"),
        ({"algorithm": "dqn", "arguments": {"train_freq": [1, "episode"]}}, "with n_envs=8; count in steps"),
        (
            {"algorithm": "trpo", "arguments": {"target_kl": None}},
            r"TRPO does not take {'target_kl': None}: give a num",
        ),
        ({"policy_kwargs": {"activation_fn": nn.GELU}}, r"a PPO with .* cannot be exported; a policy cannot have GELU"),
        ({"policy_kwargs": {"activation_fn": "GLU"}}, "a policy cannot have GLU"),
        (
            {"policy_kwargs": {"activation_fn": "Nothing"}},
            r"activation_fn is 'Nothing'; give a class of torch\.nn",
        ),
        ({"policy_kwargs": {"net_arch": [3]}}, "arguments has a net_arch; give the widths as hidden"),
        ({"policy_kwargs": {}, "arguments": {"policy_kwargs": {}}}, "policy_kwargs is given twice"),
        ({"callbacks": 3}, r"callbacks has 3; give a callback of Stable-Baselines3 \(an object\)"),
        ({"callbacks": [BaseCallback]}, "callbacks has <class .*; give a callback of Stable-Baselines3"),
        ({"callbacks": "nothing:there"}, "'nothing:there' failed with ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_is_said_before_anything_begins(wrong: dict[str, Any], message: str) -> None:
    settings = lamp_settings(**TINY, action=wrong.pop("action", "profiles"))
    with pytest.raises(RLPruneError, match=message):
        make_callbacks(wrong.pop("callbacks", None))
        Learner.of(**wrong).check(settings)


def test_nothing_is_written_before_all_is_checked(tmp_path: Path) -> None:
    for wrong in ({"algorithm": "sac"}, {"callbacks": 3}, {"arguments": {"tau": 1}}):
        with pytest.raises(RLPruneError):
            train_lamp(tmp_path / "run", lamp_settings(**TINY), **wrong)
    assert not (tmp_path / "run" / "settings.json").exists()


def test_noise_has_to_fit_the_actions(tmp_path: Path) -> None:
    noise = NormalActionNoise(np.zeros(5), np.ones(5))
    with pytest.raises(RLPruneError, match=r"action_noise is of shape \(5,\); actions have shape \(2,\), give that"):
        train_lamp(tmp_path, lamp_settings(**ONCE, action="ratios"), algorithm="td3", arguments={"action_noise": noise})


def test_algorithms_have_names_however_they_are_written() -> None:
    for name in NAMES:
        found = find_algorithm(name)
        assert found == find_algorithm(found.kind) == find_algorithm(found.kind.__name__.lower())
    assert find_algorithm("stable_baselines3:PPO").is_ppo


def test_a_missing_package_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.delitem(imports.sys.modules, "sb3_contrib")
    monkeypatch.setattr(imports.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"needs the package 'sb3_contrib'.*pip install 'rlprune\[contrib\]'"):
        find_algorithm("trpo")


class Slower(PPO):
    """An algorithm of one's own, with an argument of its own."""

    def __init__(self, *args: Any, slower: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slower = slower


def test_an_algorithm_of_one_s_own_takes_what_it_adds(tmp_path: Path) -> None:
    settings = lamp_settings(**ONCE)
    train_lamp(tmp_path, settings, algorithm=Slower, arguments={"slower": 0.5, "clip_range": 0.1})
    agent = Slower.load(tmp_path / "checkpoint.zip")
    assert (agent.slower, agent.clip_range(1.0), agent.n_steps) == (0.5, 0.1, 4)
    notes = json.loads((tmp_path / "settings.json").read_text())
    assert notes["algorithm"].endswith(":Slower") and "ppo" not in notes


def test_a_run_is_not_resumed_with_another_algorithm(tmp_path: Path) -> None:
    settings = lamp_settings(**ONCE)
    train_lamp(tmp_path / "ppo", settings)
    train_lamp(tmp_path / "a2c", settings, algorithm="a2c")
    with pytest.raises(RLPruneError, match="algorithm: 'ppo', now 'a2c'"):
        train_lamp(tmp_path / "ppo", settings, algorithm="a2c", resume=True)
    with pytest.raises(RLPruneError, match="algorithm: 'a2c', now 'ppo'"):
        train_lamp(tmp_path / "a2c", settings, resume=True)


def test_a_checkpoint_without_its_replay_buffer_is_refused(tmp_path: Path) -> None:
    settings = lamp_settings(**ONCE)
    train_lamp(tmp_path, settings, algorithm="dqn")
    DQN.load(tmp_path / "checkpoint.zip").save(tmp_path / "checkpoint.zip")
    with pytest.raises(RLPruneError, match=r"it has no replay buffer, .*; remove it to start anew"):
        train_lamp(tmp_path, settings, algorithm="dqn", resume=True)


class Counting(BaseCallback):
    n = 0

    def _on_step(self) -> bool:
        type(self).n += 1
        return True


def test_callbacks_are_called_and_may_be_functions_or_names(tmp_path: Path) -> None:
    seen: list[int] = []
    callbacks = [Counting(), lambda names, _: bool(seen.append(names["n_steps"]) or True), f"{__name__}:Counting"]
    train_lamp(tmp_path, lamp_settings(**ONCE), callbacks=callbacks[:2])
    assert Counting.n == len(seen) == 32 // 8


def test_policy_kwargs_may_be_objects_or_names(tmp_path: Path) -> None:
    settings = lamp_settings(**ONCE)
    named = {"activation_fn": "ReLU", "optimizer_class": "torch.optim.RMSprop"}
    one = train_lamp(tmp_path / "named", settings, policy_kwargs=named)
    objects = {"activation_fn": nn.ReLU, "optimizer_class": torch.optim.RMSprop}
    other = train_lamp(tmp_path / "objects", settings, policy_kwargs=objects)
    assert one.activation == "ReLU"
    assert all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())
    train_lamp(tmp_path / "named", settings, policy_kwargs=objects, resume=True)


def test_settings_become_the_arguments_that_an_algorithm_has(tmp_path: Path) -> None:
    settings = lamp_settings(**ONCE, action="ratios", n_epochs=3)
    train_lamp(tmp_path, settings, algorithm="td3")
    agent: Any = find_algorithm("td3").kind.load(tmp_path / "checkpoint.zip")
    assert (agent.train_freq.frequency, agent.gradient_steps, agent.buffer_size, agent.gamma) == (4, 3, 32, 1.0)
    assert isinstance(agent.action_noise.noises[0], NormalActionNoise)
    assert Learner.of("td3").unused(lamp_settings()) == ["entropy=0.002"]
    assert Learner.of("a2c").unused(lamp_settings()) == ["batch_size=128"]
    assert Learner.of("ppo").unused(lamp_settings()) == []
