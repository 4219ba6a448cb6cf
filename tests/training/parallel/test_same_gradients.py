"""Several processes train the network that one does: the same gradients, norms and weights for the same batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import make_data, make_elastic, network
from ranks import misfit, ranks
from torch import Tensor

from rlprune.agents.joint.tuning import TuneSettings, tune
from rlprune.baselines.gate_training import GateSettings, train_gates
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.policies.actions import Actions
from rlprune.policies.observations import Observer
from rlprune.policies.policy import Policy
from rlprune.training import loop
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings

EXACT: dict[str, Any] = {"bf16": False, "channels_last": False, "padding": 2, "learning_rate": 0.001}
"""With long steps over noise, rounding grows within 20 of them to what weights of other digits would give, too."""
Weights = dict[str, Tensor]


def pretrained(kind: str, n: int, **how: Any) -> Weights:
    model = network(kind)
    pretrain(model, make_data(n), TrainingSettings(**EXACT, **how))
    return model.state_dict()


def adapted(kind: str, n: int, **how: Any) -> Weights:
    elastic = make_elastic(kind)
    adapt(elastic, make_data(n), AdaptSettings(**EXACT, **how))
    return elastic.state_dict()


def tuned(kind: str, n: int, **how: Any) -> Weights:
    elastic = make_elastic(kind)
    codebook = torch.stack([elastic.uniform(1), elastic.full])
    observer, actions = Observer.fit(elastic, make_data(40)), Actions.from_network(elastic, "profiles", codebook, 2)
    torch.manual_seed(1)
    policy = Policy((observer.fixed().size, actions.n_outputs), "Tanh", observer, actions, codebook)
    tune(elastic, policy, make_data(n), TuneSettings(floor=3, **EXACT, **how), held_out=make_data(30))
    return elastic.state_dict()


def gated(kind: str, n: int, **how: Any) -> Weights:
    torch.manual_seed(1)
    gates = GatedCNN(make_elastic(kind), "channels")
    train_gates(gates, make_data(n), GateSettings(**EXACT, **how))
    return gates.state_dict()


def _call(training: Callable[..., Weights], kind: str, n: int, how: dict[str, Any]) -> Weights:
    return training(kind, n, **how)


@pytest.mark.parametrize(
    ("training", "kind", "n", "how"),
    [
        (pretrained, "residual", 1280, {"batch_size": 128, "epochs": 2}),  # 20 steps, of 1 x 128 or 2 x 64 images
        (adapted, "residual", 160, {"batch_size": 16, "epochs": 2}),  # 20 steps, of 1 x 16 or 2 x 8, in four profiles
        (pretrained, "plain", 31, {"batch_size": 15, "epochs": 2}),  # with dropout; parts of 7 and 8 images
        (adapted, "residual", 13, {"batch_size": 13, "epochs": 2, "average_share": 0.5}),
        (adapted, "plain", 27, {"batch_size": 13, "epochs": 1, "accumulate": 2, "views": 2}),
        (tuned, "plain", 26, {"batch_size": 13, "epochs": 2}),
        (gated, "plain", 26, {"batch_size": 13, "epochs": 1}),
    ],
)
def test_two_processes_train_as_one(
    training: Callable[..., Weights],
    kind: str,
    n: int,
    how: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "_N_MEASURED", 2)
    first, second = ranks(_call, tmp_path, training, kind, n, how)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert misfit(first, training(kind, n, **how)) < 1e-5
