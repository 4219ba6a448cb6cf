"""A reward and an observation of a user's module, trained, stored and exported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mine
import pytest
import torch
from lamp import lamp_settings, make_lamp, make_lamp_data, train_lamp

import rlprune
from rlprune.agents.warm_start import CHECKPOINT
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.deployment.onnx.export import save_onnx, to_onnx
from rlprune.errors import BundleError, RLPruneError
from rlprune.policies.policy import Policy
from rlprune.policies.protocol import Seen
from rlprune.storage.policies import load_policy

REWARD = {"class": "mine:SquaredCost", "settings": {"weight": 2.0}}
SETTINGS = lamp_settings(max_passes=2, total_steps=1024, validate_every=1024)


def grey_images(n: int) -> torch.Tensor:
    """Images of one grey each, uint8 (n, 1, 12, 12)."""
    greys = torch.linspace(0, 255, n).to(torch.uint8)
    return greys[:, None, None, None].expand(n, 1, 12, 12).contiguous()


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_own_reward_and_observation_decide_the_same_in_onnxruntime(tmp_path: Path, algorithm: str) -> None:
    pytest.importorskip("onnxruntime")
    settings = replace(SETTINGS, total_steps=6144)
    policy = train_lamp(tmp_path / "run", settings, reward=REWARD, observation="mine:Brightness", algorithm=algorithm)
    rlprune.save_bundle(tmp_path / "bundle", make_lamp(), policy, make_lamp_data(4))
    model = rlprune.load(tmp_path / "bundle", observation="mine:Brightness")
    save_onnx(tmp_path / "own.onnx", model)
    images = grey_images(200)
    expected, found = model(images), OnnxCNN(tmp_path / "own.onnx")(images)
    assert len(expected.profiles.unique(dim=0)) > 1
    assert torch.equal(found.profiles, expected.profiles) and torch.equal(found.macs, expected.macs)
    assert torch.equal(torch.cat([model(image[None]).profiles for image in images[:50]]), expected.profiles[:50])


def test_it_learns_from_an_own_observation_what_the_default_one_shows(tmp_path: Path) -> None:
    policy = train_lamp(tmp_path, lamp_settings(max_passes=1), observation=mine.Brightness())
    figures = load_policy(tmp_path / "policy", mine.Brightness).metadata
    assert figures["validation"]["accuracy"] == 1.0  # each profile is right where the other is wrong
    assert figures["settings"]["observation"] == {"class": "mine:Brightness", "settings": {"cells": 1}}
    assert policy.observer.own is not None and policy.observer.own.name == "mine:Brightness"


def test_runs_with_another_reward_or_observation_are_told_apart(tmp_path: Path) -> None:
    own: dict[str, Any] = {"reward": REWARD, "observation": mine.Doubt()}
    first = train_lamp(tmp_path, SETTINGS, **own)
    for change, message in (
        ({"reward": mine.SquaredCost(3.0)}, r"reward\.settings\.weight: 2\.0, now 3\.0"),
        ({"reward": None}, "reward: .*SquaredCost.*, now None"),
        ({"observation": "mine:Brightness"}, "observation.class: 'mine:Doubt', now 'mine:Brightness'"),
        ({"observation": mine.Doubt(2.0)}, r"observation\.settings\.scale: 1\.0, now 2\.0"),
    ):
        with pytest.raises(RLPruneError, match=f"was made under other settings .*{message}"):
            train_lamp(tmp_path, SETTINGS, resume=True, **own | change)
    again = train_lamp(tmp_path, SETTINGS, resume=True, reward=mine.SquaredCost(2.0), observation="mine:Doubt")
    assert all(torch.equal(tensor, first.tensors()[name]) for name, tensor in again.tensors().items())
    with pytest.raises(
        RLPruneError, match=r"has observation=.*mine:Doubt.*; a run that starts from it must have the same"
    ):
        train_lamp(tmp_path / "other", SETTINGS, start=tmp_path, observation=mine.Doubt(2.0))
    started: Policy = train_lamp(tmp_path / "same", SETTINGS, start=tmp_path, observation=mine.Doubt())
    assert started.sizes == first.sizes


@pytest.mark.parametrize("wrong", [{"reward": "mine:Nothing"}, {"observation": {"class": "mine:Doubt", "sett": {}}}])
def test_a_wrong_name_is_refused_before_anything_is_written(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(RLPruneError, match=r"mine:Nothing|give an object, 'module:Class'"):
        train_lamp(tmp_path / "run", SETTINGS, **wrong)
    assert not (tmp_path / "run" / CHECKPOINT).exists() and not (tmp_path / "run").exists()


def test_a_bundle_with_an_own_observation_says_which_class_it_needs(tmp_path: Path) -> None:
    policy = train_lamp(tmp_path / "run", SETTINGS, observation=mine.Doubt())
    rlprune.save_bundle(tmp_path / "bundle", make_lamp(), policy, make_lamp_data(4))
    with pytest.raises(BundleError, match=r"an observation of its own, mine:Doubt, .* give the class: observation="):
        rlprune.load(tmp_path / "bundle")
    model = rlprune.load(tmp_path / "bundle", observation=mine.Doubt)
    assert torch.equal(model(grey_images(9)).profiles, model(grey_images(9)).profiles)


@dataclass(frozen=True)
class Wavy(mine.Doubt):
    """Computes what ONNX has no operator for."""

    def __call__(self, seen: Seen) -> torch.Tensor:
        return torch.special.bessel_j0(super().__call__(seen)).clamp(0, 1)


def test_an_export_says_which_operation_of_an_observation_onnx_has_not(tmp_path: Path) -> None:
    policy = train_lamp(tmp_path / "run", SETTINGS, observation=Wavy())
    model = DynamicCNN.for_images(make_lamp(), policy, make_lamp_data(4))
    with pytest.raises(
        RLPruneError, match=r"decide, with the observation .*:Wavy, cannot be exported .*bessel_j0"
    ) as caught:
        to_onnx(model)
    assert "\n" not in str(caught.value)
