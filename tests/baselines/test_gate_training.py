from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import colours, make_elastic

from rlprune.baselines.gate_training import GateSettings, train_gates
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.evaluation.gated import evaluate_gated

QUICK: dict[str, Any] = {"batch_size": 16, "bf16": False, "channels_last": False, "padding": 0, "flip": False}


def make_gated(net: str, kind: str) -> GatedCNN:
    torch.manual_seed(0)
    return GatedCNN(make_elastic(net), kind).eval()


@pytest.mark.parametrize("kind", ["channels", "branches"])
def test_training_meets_the_density_and_stays_right(kind: str) -> None:
    data, gated = colours(80), make_gated("residual", kind)
    settings = GateSettings(epochs=30, learning_rate=0.05, density=0.6, distillation=0.0, **QUICK)
    seen: list[dict[str, float]] = []
    train_gates(gated, data, settings, log=lambda _, figures: seen.append(figures))
    results = evaluate_gated(gated, data)
    assert results.accuracy > 0.9
    assert results.density == pytest.approx(0.6, abs=0.15)
    assert seen[-1].keys() == {"loss", "density", "learning_rate"}
    assert 0 < results.macs_cut < 1


def test_sparsity_closes_gates_without_a_target() -> None:
    data, densities = colours(80), []
    for sparsity in (1e-9, 0.05):
        gated = make_gated("residual", "channels")
        settings = GateSettings(epochs=20, sparsity=sparsity, distillation=0.0, **QUICK)
        train_gates(gated, data, settings)
        densities.append(evaluate_gated(gated, data).density)
    assert densities[1] < densities[0] - 0.3
