"""A training that begins as a cascade: what it leaves, how it goes on, and where there can be none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lamp import lamp_settings, make_lamp, make_lamp_data, train_lamp
from stable_baselines3 import PPO

from rlprune.agents.callbacks import ResumeCheckpointCallback
from rlprune.agents.settings import PolicySettings
from rlprune.agents.warm_start import CHECKPOINT
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import RLPruneError, SettingsError
from rlprune.policies.policy import Policy
from rlprune.storage.policies import load_policy

SETTINGS = lamp_settings(
    begin="cascade", n_envs=16, n_steps=8, batch_size=64, total_steps=512, validate_every=256, pool=0
)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def profiles(policy: Policy) -> list[list[int]]:
    data = make_lamp_data(16)
    found: list[list[int]] = DynamicCNN(make_lamp(), policy, data.mean, data.std, data.classes)(
        data.images
    ).profiles.tolist()
    return found


def test_where_learning_gains_nothing_the_cascade_is_kept_and_the_checkpoint_keeps_what_was_learnt(
    tmp_path: Path,
) -> None:
    policy = train_lamp(tmp_path, SETTINGS)
    about = load_policy(tmp_path / "policy").metadata
    assert about["choice"]["kept"] == "cascade" and about["choice"]["gain"] <= 0
    assert about["begun_as"] == {"steps": [0, 1], "margins": [pytest.approx(1.562, abs=1e-3)], "tilt": 0.0}
    assert about["validation"]["accuracy"] == 1.0 and about["settings"]["begin"] == "cascade"
    assert policy.sizes == (6, 2, 3) and profiles(policy) == [[0, -1], [0, 1]] * 8
    assert PPO.load(tmp_path / CHECKPOINT).policy.mlp_extractor.latent_dim_pi == 16


def test_where_learning_gains_it_is_kept(tmp_path: Path) -> None:
    policy = train_lamp(tmp_path, lamp_settings(begin="cascade", pool=1))  # it may see what is bright
    about = load_policy(tmp_path / "policy").metadata
    assert about["choice"]["kept"] == "learnt" and about["choice"]["gain"] > 0
    assert policy.sizes[1:-1] == (16,) and profiles(policy) == [[0, -1], [1, -1]] * 8


def test_one_for_a_range_begins_so_too(tmp_path: Path) -> None:
    settings = replace(SETTINGS, penalty_range=(0.05, 1.0), learning_rate=1e-6)
    policy = train_lamp(tmp_path, settings)
    assert load_policy(tmp_path / "policy").metadata["choice"]["kept"] == "cascade"
    assert profiles(policy.at()) == [[0, -1], [0, 1]] * 8 and policy.budgets is not None


def test_interrupted_or_extended_it_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = ResumeCheckpointCallback.save

    def interrupting(self: ResumeCheckpointCallback) -> None:
        save(self)
        raise KeyboardInterrupt

    for name in ("whole", "parts"):
        train_lamp(tmp_path / name, SETTINGS)
    train_lamp(tmp_path / "whole", SETTINGS, extend=512)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ResumeCheckpointCallback, "save", interrupting)
        train_lamp(tmp_path / "parts", SETTINGS, extend=512)
    torch.manual_seed(5)
    train_lamp(tmp_path / "parts", SETTINGS, extend=512, resume=True)
    assert contents(tmp_path / "parts" / "policy") == contents(tmp_path / "whole" / "policy")
    both = [PPO.load(tmp_path / name / CHECKPOINT).policy.state_dict() for name in ("parts", "whole")]
    assert all(torch.equal(value, both[1][name]) for name, value in both[0].items())
    about = load_policy(tmp_path / "parts" / "policy").metadata
    assert about["steps"] == 1024 and "begun_as" in about
    assert json.loads((tmp_path / "parts" / "settings.json").read_text())["begun_as"] == about["begun_as"]


def test_a_run_can_start_with_what_another_has_learnt_and_still_keeps_the_better(tmp_path: Path) -> None:
    train_lamp(tmp_path / "first", replace(SETTINGS, penalty=0.4))
    train_lamp(tmp_path / "second", replace(SETTINGS, learning_rate=1e-9), start=tmp_path / "first")
    before, after = (
        PPO.load(tmp_path / name / CHECKPOINT).policy.state_dict()["action_net.bias"] for name in ("first", "second")
    )
    assert torch.allclose(before, after, atol=1e-4)
    assert load_policy(tmp_path / "second" / "policy").metadata["choice"]["kept"] == "cascade"


@pytest.mark.parametrize(
    ("change", "arguments", "begun"),
    [
        ({}, {}, "cascade"),
        ({}, {"algorithm": "a2c"}, "cascade"),
        ({"max_passes": 1}, {}, "random"),
        ({"action": "levels"}, {}, "random"),
        ({"hidden": ()}, {}, "random"),
        ({}, {"policy_kwargs": {"activation_fn": "ReLU"}}, "random"),
        ({}, {"algorithm": "dqn"}, "random"),
    ],
)
def test_auto_begins_as_a_cascade_where_there_can_be_one(
    change: Any, arguments: Any, begun: str, tmp_path: Path
) -> None:
    train_lamp(tmp_path, replace(SETTINGS, begin="auto", total_steps=128, **change), **arguments)
    notes = json.loads((tmp_path / "settings.json").read_text())
    assert notes["begin"] == begun and ("begun_as" in notes) == (begun == "cascade")


def test_a_run_of_an_earlier_version_goes_on_as_it_began(tmp_path: Path) -> None:
    train_lamp(tmp_path, replace(SETTINGS, begin="random"))
    agent = PPO.load(tmp_path / CHECKPOINT)
    del agent.rlprune_notes["begin"]
    agent.save(tmp_path / CHECKPOINT)
    train_lamp(tmp_path, replace(SETTINGS, begin="auto"), extend=128)
    assert load_policy(tmp_path / "policy").metadata["settings"]["begin"] == "random"
    with pytest.raises(RLPruneError, match=r"begin: 'random', now 'cascade'"):
        train_lamp(tmp_path, SETTINGS, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_passes": 1}, "begin='cascade': a cascade needs max_passes of 2 or 3; give begin='random'"),
        ({"action": "ratios"}, "begin='cascade': a cascade chooses profiles, not ratios"),
        ({"max_passes": 3, "hidden": (64, 2)}, r"hidden layers, each of 3 units or more, not \(64, 2\)"),
    ],
)
def test_settings_without_a_cascade_are_refused(change: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        PolicySettings(begin="cascade", **change)


class Nothing:
    """An observation that shows nothing."""

    low, high = 0.0, 1.0

    def __call__(self, seen: Any) -> torch.Tensor:
        return torch.zeros(len(seen.passes), 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": "dqn"}, "written into the actors of ppo, a2c, trpo, maskable_ppo alone; give begin='random'"),
        ({"policy_kwargs": {"activation_fn": "ELU"}}, "a cascade needs Tanh between the layers, not ELU"),
        ({"observation": Nothing()}, "a cascade reads the default observation, not one of your own"),
    ],
)
def test_learners_without_a_cascade_are_refused(arguments: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RLPruneError, match=message):
        train_lamp(tmp_path, SETTINGS, **arguments)
    assert list(tmp_path.iterdir()) == []
