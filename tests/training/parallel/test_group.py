"""What processes that train together tell each other, and what they say when one of them is lost or differs."""

from __future__ import annotations

import os
import re
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from nets import N_CLASSES, make_data, make_elastic, network
from ranks import ranks
from torch import Tensor

from rlprune.envs.logit_cache import LogitCache
from rlprune.errors import ClusterError, InUseError, NotFiniteError
from rlprune.training.batches import Batch
from rlprune.training.distillation import cache_teacher_logits
from rlprune.training.loop import Step, fit
from rlprune.training.parallel import division
from rlprune.training.parallel import group as group_module
from rlprune.training.parallel.group import Group, current
from rlprune.training.parallel.measuring import shared_accuracy
from rlprune.training.pretraining import pretrain
from rlprune.training.run import TrainingRun
from rlprune.training.settings import TrainingSettings
from rlprune.utils.locks import hold

HOW: dict[str, Any] = {"batch_size": 16, "bf16": False, "padding": 2, "epochs": 2}


def exchanged(folder: Path) -> dict[str, Any]:
    """What is gathered, and what is computed in parts."""
    group = current()
    data, elastic = make_data(70), make_elastic("plain")
    own = torch.arange(5)[group.part(5)]
    cache = LogitCache(elastic, data, torch.stack([elastic.uniform(1), elastic.full]))
    cache.fill()
    images = torch.arange(70)
    asked = network("plain"), data, TrainingSettings(views=2, **HOW), 32
    shards = cache_teacher_logits(*asked, folder=folder / f"logits of {group.size}")
    try:
        with group.first(hold(folder / "held")):
            held = group.from_first(lambda: (folder / ".held.lock").exists())
    except InUseError as error:
        held = error
    return {
        "gathered": group.gather(own[:, None]),
        "any": (group.any(group.rank == group.size - 1), group.any(False)),
        "accuracy": shared_accuracy(elastic.slice(elastic.full), data, 16),
        "teacher": cache_teacher_logits(*asked),
        "shards": shards[images.repeat(2), images.repeat(2) % 2],
        "logits": cache.of_profiles(images.repeat(2), images.repeat(2) % 2),
        "held": held,
    }


def test_what_is_computed_in_parts_is_what_one_process_computes(tmp_path: Path) -> None:
    alone, *found = [exchanged(tmp_path), *ranks(exchanged, tmp_path, tmp_path)]
    for one in found:
        assert one["any"] == alone["any"] == (True, False)
        assert one["accuracy"] == alone["accuracy"] and one["held"] is True
        assert all(torch.equal(one[name], alone[name]) for name in ("gathered", "teacher", "shards", "logits"))
    assert alone["gathered"].flatten().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize(("n", "n_pieces"), [(2, 1), (3, 2), (13, 1), (16, 3), (4, 9)])
def test_every_image_of_a_step_counts_alike(size: int, n: int, n_pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.zeros(n, dtype=torch.float64)
    cuts = set()
    for rank in range(size):
        monkeypatch.setattr(division, "current", lambda rank=rank: Group(rank, size))
        pieces = division.Division.of(n, n_pieces).pieces
        cuts.add(tuple((piece.start, piece.stop) for piece in pieces))
        for piece in pieces:
            weight[piece.rows] += piece.weight / len(piece.rows)
    assert len(cuts) == 1
    torch.testing.assert_close(weight, torch.full_like(weight, 1 / n))


def pretrained(checkpoint: Path, killed: int | None) -> dict[str, Tensor]:
    """Train; the last process kills itself in the midst of a step."""
    update, steps = TrainingRun.update, []

    def killing(*arguments: Any) -> None:
        steps.append(1)
        if len(steps) == killed and current().rank == current().size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        update(*arguments)

    TrainingRun.update = killing  # type: ignore[method-assign]  # in a process of its own
    model = network("plain")
    pretrain(model, make_data(48), TrainingSettings(**HOW), checkpoint=checkpoint)
    return model.state_dict()


def test_one_that_is_killed_ends_the_others_and_the_rest_is_trained_as_if_nothing_had_been(tmp_path: Path) -> None:
    first, second = ranks(pretrained, tmp_path, tmp_path / "run.pt", 5)  # in the second epoch of three steps each
    assert second is None and isinstance(first, ClusterError)
    assert "was lost" in str(first) and "what the last checkpoint has stays" in str(first)
    again, _ = ranks(pretrained, tmp_path, tmp_path / "run.pt", None)
    whole, _ = ranks(pretrained, tmp_path, tmp_path / "whole.pt", None)
    assert all(torch.equal(value, whole[name]) for name, value in again.items())


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_as_many_processes_as_one_likes_go_on(before: int, after: int, tmp_path: Path) -> None:
    ranks(pretrained, tmp_path, tmp_path / "run.pt", 5, size=before)
    resumed, *_ = ranks(pretrained, tmp_path, tmp_path / "run.pt", None, size=after)
    whole, *_ = ranks(pretrained, tmp_path, tmp_path / "whole.pt", None, size=before)
    for name, value in resumed.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-5)


def slow_first() -> int:
    return current().from_first(lambda: time.sleep(3.3) or 3)


def test_the_first_may_take_longer_than_they_look_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_module, "ARRIVAL", timedelta(seconds=3))
    assert ranks(slow_first, tmp_path) == [3, 3]


@pytest.mark.parametrize("moment", ["init_process_group", "new_group"])
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_is_lost_while_they_look_for_each_other_ends_the_other(
    moment: str, victim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = getattr(dist, moment)

    def dying(*arguments: Any, **how: Any) -> Any:
        if os.environ["RANK"] == str(victim):
            os.kill(os.getpid(), signal.SIGKILL)
        return do(*arguments, **how)

    monkeypatch.setattr(group_module, "ARRIVAL", timedelta(seconds=1))
    monkeypatch.setattr(dist, moment, dying)
    left = ranks(dict, tmp_path)[1 - victim]
    assert isinstance(left, ClusterError) and "do not find each other, or one was lost" in str(left)


def differing(what: str) -> None:
    rank = current().rank
    data = make_data(16, seed=rank) if what == "images" else make_data(16)
    settings = TrainingSettings(**HOW, learning_rate=0.1 + 0.1 * (rank if what == "settings" else 0))
    pretrain(network("plain", seed=rank if what == "network" else 0), data, settings)


@pytest.mark.parametrize(
    ("what", "words"),
    [("settings", r"settings\.learning_rate: 0\.1, now 0\.2"), ("network", "the network"), ("images", "the images")],
)
def test_one_that_differs_is_found_before_the_first_step(what: str, words: str, tmp_path: Path) -> None:
    for error in ranks(differing, tmp_path, what):
        assert isinstance(error, ClusterError) and error.agreed  # type: ignore[attr-defined]
        assert re.fullmatch(f"process 1 differs from process 0 in {words}: start all .*", str(error))


def diverging() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, N_CLASSES))

    def make_step(_: torch.Generator) -> Step:
        def step(batch: Batch) -> dict[str, float]:
            loss = model(batch.images).square().mean() * (float("nan") if current().rank else 1)
            batch.backward(loss)
            return {"loss": loss.item()}

        return step

    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter)
    fit(model, make_data(16), TrainingSettings(**HOW), make_step)


def test_a_loss_that_is_not_finite_in_one_stops_all(tmp_path: Path) -> None:
    for error in ranks(diverging, tmp_path):
        assert isinstance(error, NotFiniteError)
        assert str(error).startswith("training stopped: the loss is not finite in epoch 1 of 2")
