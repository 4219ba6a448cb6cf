"""Trainings of networks that are interrupted anywhere end as if they had not been."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from events import read_events
from interruptions import Interrupted, every_second_step
from nets import IMAGE_SHAPE, N_CLASSES, make_data, make_elastic
from torch import Tensor, nn

from rlprune.agents.joint.tuning import TuneSettings, tune
from rlprune.baselines.gate_training import GateSettings, train_gates
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.errors import OutOfMemoryError
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.policy import Policy
from rlprune.training import loop, run
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings
from rlprune.utils.tensorboard import scalar_log

QUICK: dict[str, Any] = {"batch_size": 16, "bf16": False, "channels_last": False, "padding": 2, "average_share": 0.5}
DATA = make_data(40)
EPOCHS = 3


def pretrained(**kept: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    layers = (nn.Conv2d(IMAGE_SHAPE[0], 4, 3), nn.Dropout(), nn.BatchNorm2d(4), nn.AvgPool2d(8), nn.Flatten())
    network = nn.Sequential(*layers, nn.LazyLinear(N_CLASSES))  # what its norm measures depends on the dropout
    network(torch.zeros(1, *IMAGE_SHAPE))
    pretrain(network, DATA, TrainingSettings(epochs=EPOCHS, **QUICK), **kept)
    return network.state_dict()


def adapted(**kept: Any) -> dict[str, Tensor]:
    elastic = make_elastic("plain")
    adapt(elastic, DATA, AdaptSettings(epochs=EPOCHS, **QUICK), **kept)
    return elastic.state_dict()


def tuned(**kept: Any) -> dict[str, Tensor]:
    elastic = make_elastic("plain")
    codebook = torch.stack([elastic.uniform(1), elastic.full])
    observer, actions = Observer.fit(elastic, DATA), Actions.from_network(elastic, "profiles", codebook, 2)
    torch.manual_seed(1)
    policy = Policy((observer.fixed().size, actions.n_outputs), "Tanh", observer, actions, codebook)
    tune(elastic, policy, DATA, TuneSettings(epochs=EPOCHS, floor=2, **QUICK), **kept)
    return elastic.state_dict()


def gated(**kept: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    network = GatedCNN(make_elastic("plain"), "channels")
    train_gates(network, DATA, GateSettings(epochs=EPOCHS, **QUICK), **kept)
    return network.state_dict()


@pytest.mark.parametrize("training", [pretrained, adapted, tuned, gated])
def test_it_ends_as_one_that_was_not_interrupted(
    training: Callable[..., dict[str, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_N_MEASURED", 3)
    whole = training(checkpoint=tmp_path / "whole.pt", log=scalar_log(tmp_path / "whole", "loss"))
    save = run.TrainingRun.save
    for epoch in range(1, EPOCHS + 1):
        for saved in (False, True):

            def interrupting(*arguments: Any, epoch: int = epoch, saved: bool = saved) -> None:
                if saved or arguments[-1] < epoch:
                    save(*arguments)
                if arguments[-1] == epoch:
                    raise Interrupted

            monkeypatch.setattr(run.TrainingRun, "save", interrupting)
            torch.manual_seed(epoch)  # another process's state
            with pytest.raises(Interrupted):
                training(checkpoint=tmp_path / "run.pt", log=scalar_log(tmp_path / "run", "loss"))
    monkeypatch.setattr(run.TrainingRun, "save", save)
    torch.manual_seed(7)
    again = training(checkpoint=tmp_path / "run.pt", log=scalar_log(tmp_path / "run", "loss"))
    assert all(torch.equal(value, whole[name]) for name, value in again.items())
    assert read_events(tmp_path / "run") == read_events(tmp_path / "whole")


def test_a_checkpoint_that_finds_too_little_memory_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted(checkpoint=tmp_path / "run.pt")

    def lacking(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(run.torch, "load", lacking)
    with pytest.raises(OutOfMemoryError, match=r"memory ran out while reading .*run\.pt .*; it stays: give the same"):
        adapted(checkpoint=tmp_path / "run.pt")
    assert (tmp_path / "run.pt").exists()


@pytest.mark.parametrize("training", [pretrained, adapted, tuned, gated])
def test_a_signal_ends_after_a_step_that_is_saved(
    training: Callable[..., dict[str, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_N_MEASURED", 3)
    whole = training(checkpoint=tmp_path / "whole.pt", log=scalar_log(tmp_path / "whole", "loss"))
    every_second_step(monkeypatch)
    attempts = 0
    again: dict[str, Tensor] = {}
    while not again:
        attempts += 1
        torch.manual_seed(attempts)  # another process's state
        with suppress(Interrupted):
            again = training(checkpoint=tmp_path / "run.pt", log=scalar_log(tmp_path / "run", "loss"))
    assert attempts > EPOCHS
    assert all(torch.equal(value, whole[name]) for name, value in again.items())
    assert read_events(tmp_path / "run") == read_events(tmp_path / "whole")
