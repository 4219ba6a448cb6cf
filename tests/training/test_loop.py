"""What a training does to a network, step by step, and where it stops because numbers are not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import (
    IMAGE_SHAPE,
    N_CLASSES,
    make_data,
    network,
)
from quick import QUICK
from torch import nn

from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import NotFiniteError, RLPruneError
from rlprune.training.adaptation import AdaptSettings, adapt, calibrate
from rlprune.training.batches import Batch
from rlprune.training.loop import fit
from rlprune.training.pretraining import pretrain
from rlprune.training.run import share_of_peak
from rlprune.training.settings import TrainingSettings


def test_the_same_seed_gives_the_same_network_and_another_another() -> None:
    data, weights = make_data(20), []
    for seed in (0, 0, 1):
        model = network("plain")
        torch.rand(seed + 1)  # whatever the process drew before
        pretrain(model, data, TrainingSettings(epochs=1, seed=seed, **QUICK))
        weights.append(model.classifier[1].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


class _StdPool(nn.Module):
    """Its gradient is NaN where all features of a channel are equal, though its output is a number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.var((2, 3)).sqrt()


def test_a_gradient_that_is_not_finite_stops_training_before_it_is_applied() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), _StdPool(), nn.Linear(8, N_CLASSES))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = make_data(16)
    black = replace(data, images=torch.zeros_like(data.images), mean=(0.0,) * 3)
    message = (
        r"stopped: the gradient is not finite in epoch 1 of 2, at learning rate 0\.\d+; .*no checkpoint was written"
    )
    with pytest.raises(NotFiniteError, match=message):
        pretrain(model, black, TrainingSettings(epochs=2, **QUICK))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("bf16", [False, True])
def test_a_loss_that_is_not_finite_stops_training_and_leaves_the_last_good_checkpoint(
    bf16: bool, tmp_path: Path
) -> None:
    model = network("plain")
    settings = TrainingSettings(epochs=3, **(QUICK | {"bf16": bf16}))

    def spoil(*_: Any) -> None:
        log.append(_)
        if len(log) == 2:  # the second epoch is over, its checkpoint is not written yet
            with torch.no_grad():
                model.classifier[1].weight[0] = 1e38

    log: list[Any] = []
    message = "the loss is not finite in epoch 3 of 3.*" + (
        "bf16=False, which --resume can" if bf16 else "run.pt has the"
    )
    with pytest.raises(NotFiniteError, match=message) as raised:
        pretrain(model, make_data(20), settings, checkpoint=tmp_path / "run.pt", log=spoil)
    assert ("bf16" in str(raised.value)) is bf16
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    assert saved["epoch"] == 2 and all(value.isfinite().all() for value in saved["network"].values())


def test_weights_that_hold_nan_are_not_trained() -> None:
    model = network("plain")
    with torch.no_grad():
        model.classifier[1].weight[0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match=r"classifier\.1\.weight of the network holds NaN or infinity before"):
        pretrain(model, make_data(20), TrainingSettings(epochs=1, **QUICK))


def test_one_step_is_gradient_descent_and_vectors_do_not_decay() -> None:
    model = nn.Linear(1, 1)
    model.weight.data.fill_(2.0)
    model.bias.data.fill_(1.0)
    model.forward = lambda x: x  # type: ignore[method-assign]
    settings = TrainingSettings(epochs=1, batch_size=4, momentum=0, weight_decay=0.5, learning_rate=0.1, warm_up=0)

    def step(_: torch.Generator) -> Any:
        def run(batch: Batch) -> dict[str, float]:
            (3 * model.weight + 3 * model.bias).sum().backward()
            return {"seen": float(len(batch.images))}

        return run

    figures: list[dict[str, float]] = []
    fit(model, make_data(4), settings, step, log=lambda _, f: figures.append(f))
    assert model.weight.item() == pytest.approx(2 - 0.1 * (3 + 0.5 * 2))
    assert model.bias.item() == pytest.approx(1 - 0.1 * 3)
    assert figures == [{"seen": 4, "learning_rate": 0}]


def test_weights_are_averaged_over_the_last_steps_at_a_rate_that_stays() -> None:
    model, seen, rates = nn.Linear(1, 1, bias=False), [], []
    model.weight.data.fill_(0.0)
    settings = TrainingSettings(epochs=4, batch_size=4, momentum=0, weight_decay=0, average_share=0.5, warm_up=0)

    def step(_: torch.Generator) -> Any:
        def run(_: Batch) -> dict[str, float]:
            seen.append(model.weight.item())
            (-model.weight).sum().backward()
            return {}

        return run

    fit(model, make_data(8), settings, step, log=lambda _, figures: rates.append(figures["learning_rate"]))
    steps = torch.tensor(seen[:8]).diff()  # two steps in each of four epochs; more settle norms
    assert rates[1:] == pytest.approx([0.05] * 3)
    assert steps[:4].tolist() == pytest.approx([0.1 * share_of_peak(n, 8, 0) for n in range(4)])
    assert steps[4:].tolist() == pytest.approx([0.05] * 3)
    assert model.weight.item() == pytest.approx((sum(seen[5:8]) + seen[7] + 0.05) / 4)


def test_norms_measure_the_statistics_of_averaged_weights() -> None:
    model, data = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1)), make_data(64)
    settings = TrainingSettings(epochs=2, batch_size=16, average_share=1.0, padding=0, flip=False, bf16=False)

    def step(_: torch.Generator) -> Any:
        def run(batch: Batch) -> dict[str, float]:
            (model(batch.images).relu().square().mean() - model[0].weight.sum()).backward()
            return {}

        return run

    fit(model, data, settings, step)
    with torch.no_grad():
        features = model[0](data.normalised(torch.arange(64)))
    assert model[1].running_mean.item() == pytest.approx(features.mean().item(), abs=0.05 * features.std().item())
    assert model[1].running_var.item() == pytest.approx(features.var().item(), rel=0.1)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scales_of_norms_are_drawn_to_zero_one_by_one() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False))
    model[1].weight.data.copy_(torch.tensor([2.0, -2.0, 0.5, 0.0]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = TrainingSettings(
        epochs=1, batch_size=4, momentum=0, weight_decay=0, learning_rate=0.1, warm_up=0, scale_penalty=0.5, bf16=False
    )

    def step(_: torch.Generator) -> Any:
        def run(batch: Batch) -> dict[str, float]:
            (0 * model(batch.images)).sum().backward()
            return {}

        return run

    fit(model, make_data(4), settings, step)
    for name, value in model.state_dict().items():
        moved = torch.tensor([-0.05, 0.05, -0.05, 0.0]) if name == "1.weight" else torch.zeros(())
        if name.endswith(("weight", "bias")):
            assert torch.allclose(value, before[name] + moved), name


class Normed(nn.Module):
    """A network with a norm that has one value per channel and image, and so needs two images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3)
        self.hidden, self.norm, self.linear = nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(F.relu(self.stem(x)))).mean((2, 3))
        return self.linear(F.relu(self.norm(self.hidden(x))))


def test_one_image_too_many_for_whole_batches_does_not_stop_training() -> None:
    model, data = Normed(), make_data(17)
    steps: list[int] = []
    model.register_forward_hook(lambda module, inputs, _: steps.append(len(inputs[0])))
    pretrain(model, data, TrainingSettings(epochs=2, **QUICK))
    assert steps == [16, 16]
    elastic = ElasticCNN.from_model(model, IMAGE_SHAPE)
    assert "norm" in elastic.elastic_layers()
    calibrate(elastic, data, TrainingSettings(**QUICK))
    adapt(elastic, data, AdaptSettings(epochs=1, **QUICK))
    assert all(value.isfinite().all() for value in elastic.state_dict().values())


def test_a_network_of_one_image_size_says_what_to_set() -> None:
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, N_CLASSES))
    with pytest.raises(RLPruneError, match=r"early_size=8: no step can .* \(mat1 and mat2 .*\); .* needs early_size=0"):
        pretrain(fixed, make_data(40), TrainingSettings(epochs=2, early_size=8, **QUICK))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        pretrain(nn.Sequential(nn.Flatten(), nn.Linear(5, N_CLASSES)), make_data(40), TrainingSettings(**QUICK))
