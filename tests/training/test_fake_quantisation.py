"""Training under the rounding of int8: the numbers are those of a quantised file, and nothing of it stays behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import colours, make_data, make_elastic, relative_error
from torch import nn

from rlprune.errors import RLPruneError
from rlprune.training.adaptation import AdaptSettings, adapt
from rlprune.training.fake_quantisation import Rounded, round_features, round_weights

QUICK: dict[str, Any] = {"batch_size": 20, "padding": 0, "flip": False, "bf16": False}


def test_weights_take_255_steps_of_a_size_for_every_channel() -> None:
    weight = torch.randn(4, 8, 3, 3) * torch.tensor([1.0, 10.0, 0.1, 0.0]).view(-1, 1, 1, 1)
    made = round_weights(weight)
    steps = weight.abs().flatten(1).amax(1) / 127
    for of_channel, exact, step in zip(made[:3], weight[:3], steps[:3], strict=True):
        assert len((of_channel / step).round().unique()) <= 255
        assert (of_channel - exact).abs().max() <= 0.501 * step
        assert torch.allclose(of_channel / step, (of_channel / step).round(), atol=1e-4)
    assert torch.equal(made[3], weight[3])


@pytest.mark.parametrize("x", [torch.rand(500) * 3 + 1, torch.randn(500), torch.zeros(5), -torch.rand(500) - 2])
def test_features_take_256_steps_over_their_range_and_0(x: torch.Tensor) -> None:
    made = round_features(x)
    span = x.max().clamp_min(0) - x.min().clamp_max(0)
    assert len(made.unique()) <= 256
    assert (made - x).abs().max() <= 1.01 * span / 255
    assert torch.equal(round_features(torch.zeros(3)), torch.zeros(3))


def test_gradients_pass_straight_through() -> None:
    x, weight = torch.randn(30, requires_grad=True), torch.randn(4, 7, requires_grad=True)
    round_features(x).sum().backward()
    round_weights(weight).sum().backward()
    assert x.grad is not None and weight.grad is not None
    assert x.grad.mean() > 0.9 and torch.equal(weight.grad, torch.ones(4, 7))


@pytest.mark.parametrize("kind", ["plain", "residual", "depthwise"])
@torch.no_grad()
def test_a_layer_computes_with_what_int8_has_of_its_slice(kind: str) -> None:
    elastic, images = make_elastic(kind), make_data(6).normalised(slice(None))
    profile = elastic.uniform(2)
    small = elastic.slice(profile)
    for layer in small.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.copy_(round_weights(layer.weight))
            layer.register_forward_pre_hook(lambda _, inputs: (round_features(inputs[0]),))
    with Rounded():
        within = elastic(images, profile)
    assert relative_error(within, small(images)) < 1e-5
    assert 0 < relative_error(within, elastic(images, profile)) < 0.1  # and outside nothing is rounded


def test_an_adapted_network_learns_under_it() -> None:
    data, exact, aware = colours(60), make_elastic("residual"), make_elastic("residual")
    settings = {**QUICK, "epochs": 2, "distillation": 0.0}
    adapt(exact, data, AdaptSettings(**settings))
    adapt(aware, data, AdaptSettings(**settings, int8=True))
    weights = [torch.cat([p.detach().flatten() for p in one.parameters()]) for one in (exact, aware)]
    assert not torch.equal(*weights) and relative_error(weights[1], weights[0]) < 0.2


def test_an_interrupted_training_goes_on_under_it(tmp_path: Any) -> None:
    data, whole, parts = colours(40), make_elastic("plain"), make_elastic("plain")
    settings = AdaptSettings(**QUICK, epochs=2, int8=True)

    def stop(images: int, figures: dict[str, float]) -> None:
        if images == len(data):
            raise KeyboardInterrupt

    adapt(whole, data, settings)
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        adapt(make_elastic("plain"), data, settings, checkpoint=checkpoint, log=stop)
    adapt(parts, data, settings, checkpoint=checkpoint)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_half_precision_would_round_otherwise() -> None:
    with pytest.raises(RLPruneError, match="int8=True and bf16=True round to different numbers"):
        AdaptSettings(int8=True, bf16=True)
    with AdaptSettings(int8=True).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
