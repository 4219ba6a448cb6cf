from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from interruptions import Interrupted, at_the_first_checkpoint
from lamp import lamp_settings, make_lamp, make_lamp_data, train_lamp
from stable_baselines3.common.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlprune.agents import KeepRatioVecEnv
from rlprune.agents.callbacks import (
    DeadlineCallback,
    EntropyCallback,
    FiguresCallback,
    easy_and_hard,
)
from rlprune.envs import Sweep, World
from rlprune.evaluation.image_strips import RIGHT
from rlprune.storage.policies import load_policy
from rlprune.utils.timing import Deadline

SETTINGS = lamp_settings(total_steps=4096, validate_every=1024, max_passes=2)


def events(path: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 0})
    return accumulator.Reload()


def steps(accumulator: EventAccumulator, key: str) -> list[int]:
    return [event.step for event in accumulator.Scalars(key)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    train_lamp(path, SETTINGS)
    return path


def test_every_key_of_the_table_is_there(folder: Path) -> None:
    tags = events(folder).Tags()
    swept = ("reward", "accuracy", "active_params", "active_macs", "passes", "distinct_profiles")
    chosen = ("accuracy", "active_params", "active_macs", "passes", "distinct_profiles")
    expected = {
        *("rollout/ep_rew_mean", "rollout/ep_len_mean", "keep/inner", "time/fps"),
        *(f"policy/{key}" for key in chosen),
        *(f"validation/{key}" for key in swept),
        *(f"train/{key}" for key in ("loss", "entropy_loss", "clip_fraction", "approx_kl", "learning_rate")),
    }
    assert expected <= set(tags["scalars"])
    assert tags["images"] == ["validation/easy_and_hard"]


def test_figures_come_with_every_rollout_and_sweeps_at_intervals(folder: Path) -> None:
    found = events(folder)
    assert steps(found, "policy/accuracy") == list(range(512, 4097, 512))
    assert sorted(set(steps(found, "validation/reward"))) == [1024, 2048, 3072, 4096]
    rates = [event.value for event in found.Scalars("train/learning_rate")]
    assert rates == sorted(rates, reverse=True) and rates[0] <= SETTINGS.learning_rate


def test_figures_are_shares_within_their_bounds(folder: Path) -> None:
    found = events(folder)
    for key, low, high in (("policy/accuracy", 0, 1), ("keep/inner", 0.5, 1), ("policy/passes", 1, 2)):
        assert all(low <= event.value <= high for event in found.Scalars(key)), key
    assert all(event.value in (1, 2) for event in found.Scalars("policy/distinct_profiles"))


def test_the_last_sweep_is_noted_with_the_policy(folder: Path) -> None:
    found, metadata = events(folder), load_policy(folder / "policy").metadata
    for key, value in metadata["validation"].items():
        assert found.Scalars(f"validation/{key}")[-1].value == pytest.approx(value)
    assert metadata["steps"] == 4096 and metadata["settings"]["penalty"] == SETTINGS.penalty


def test_hyperparameters_are_shown_beside_the_last_sweep(folder: Path) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = events(folder).PluginTagToContent("hparams")
    session = plugin_data_pb2.HParamsPluginData.FromString(content["_hparams_/session_start_info"])
    shown = session.session_start_info.hparams
    assert {"penalty", "cost", "max_passes", "hidden", "seed", "ppo"} <= set(shown)
    assert shown["penalty"].number_value == SETTINGS.penalty


def test_the_picture_is_not_blank(folder: Path) -> None:
    picture = events(folder).Images("validation/easy_and_hard")[-1]
    assert (picture.width, picture.height) == (8 * 100, 2 * 112)
    assert len(set(picture.encoded_image_string)) > 50


def test_a_resumed_run_s_events_continue_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_first_checkpoint(monkeypatch)
    with pytest.raises(Interrupted):
        train_lamp(tmp_path, SETTINGS)
    monkeypatch.undo()
    (first,) = tmp_path.glob("events.*")
    train_lamp(tmp_path, SETTINGS, resume=True)
    (second,) = set(tmp_path.glob("events.*")) - {first}
    before, after = steps(events(first), "policy/accuracy"), steps(events(second), "policy/accuracy")
    assert before == [512, 1024] and after == list(range(1536, 4097, 512))
    assert steps(events(tmp_path), "policy/accuracy") == before + after


def test_the_picture_sorts_images_by_what_is_spent_on_them() -> None:
    world = World(make_lamp(), make_lamp_data(4))
    macs = torch.tensor([0.8, 0.2, 0.6, 0.4])
    none: Any = torch.zeros(4)
    result = Sweep(none, torch.ones(4, dtype=torch.bool), none, macs, none, torch.zeros(4, 1, 1))
    picture = easy_and_hard(world, result, n=2)
    blue = (picture == RIGHT).all(-1)
    widths = [[int(blue[row, 100 * i : 100 * (i + 1)].sum()) for i in range(2)] for row in (104, 216)]
    assert picture.shape == (224, 200, 3) and picture.dtype == np.uint8
    assert widths == [[round(share * 95) + 1 for share in pair] for pair in ((0.2, 0.4), (0.6, 0.8))]


@pytest.mark.parametrize("accepts", [True, False])
def test_a_rollout_in_which_everything_is_accepted_has_no_keep_ratios(accepts: bool) -> None:
    world = World(make_lamp(), make_lamp_data(4), action="profiles", max_passes=2)
    env, callback = KeepRatioVecEnv(world, 3), FiguresCallback(world)
    callback.model = SimpleNamespace(logger=Logger(None, []))  # type: ignore[assignment]
    env.reset()
    env.step(np.zeros(3, np.int64))
    callback._on_rollout_start()
    _, _, dones, infos = env.step(np.full(3, 2 if accepts else 1))
    callback.locals = {"infos": infos, "dones": dones}
    callback._on_step()
    callback._on_rollout_end()
    found = callback.logger.name_to_value
    assert dones.all() and not any(np.isnan(value) for value in found.values())
    assert ({"keep/inner", "policy/distinct_profiles"} <= found.keys()) == (not accepts)
    assert (found["policy/passes"], found["policy/active_macs"] == 0) == (1 if accepts else 2, accepts)


def test_the_bonus_for_undecided_policies_falls_to_zero() -> None:
    callback, model = EntropyCallback(0.1, total_steps=100), SimpleNamespace(ent_coef=None)
    callback.model, found = model, []  # type: ignore[assignment]
    for n in (0, 50, 100, 120):
        callback.num_timesteps = n
        callback._on_rollout_start()
        found.append(model.ent_coef)
    assert found == pytest.approx([0.1, 0.05, 0, 0])


def test_rollouts_that_do_not_fit_are_left_out_and_training_comes_to_its_end() -> None:
    seconds = [0.0]
    deadline = Deadline(lambda *_: 10.0 - seconds[0], clock=lambda: seconds[0])
    model: Any = SimpleNamespace(num_timesteps=0)
    callback = DeadlineCallback(deadline, 2000)
    callback.model = model
    callback._on_training_start()
    n_made = 0
    while model.num_timesteps < 2000:  # 20 rollouts, of a second each
        seconds[0] += 1
        n_made += 1
        callback.num_timesteps = model.num_timesteps = model.num_timesteps + 100
        callback._on_rollout_end()
    assert model.num_timesteps == 2000 and n_made == pytest.approx(10, abs=1) and n_made + deadline.skipped == 20
