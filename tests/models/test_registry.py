from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.errors import ModelError
from rlprune.models.registry import NAMES, build

not_a_model = dict  # a callable that returns no network
a_number = 3


def small() -> nn.Module:
    return nn.Linear(2, 3)


def broken() -> nn.Module:
    raise RuntimeError("no such layer")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_networks.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(tmp_path)


def macs(name: str) -> float:
    channels, side = (1, 28) if name == "digits_cnn" else (3, 32)
    model = build(name, in_channels=channels).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, channels, side, side))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet20", 40.55),
        ("resnet32", 68.86),
        ("resnet44", 97.17),
        ("resnet56", 125.49),
        ("resnet110", 252.89),
        ("vgg16_bn", 313.20),
        ("m_cifarnet", 174.30),
        ("digits_cnn", 19.98),
    ],
)
def test_macs_are_the_published_ones(name: str, millions: float) -> None:
    assert round(macs(name) / 1e6, 2) == millions


def test_digits_cnn_macs_follow_from_its_layers() -> None:
    full = 28 * 28 * 9 * (1 * 16)
    half = 14 * 14 * 9 * (16 * 64 + 64 * 64)
    quarter = 7 * 7 * 9 * (64 * 128 + 128 * 128)
    assert macs("digits_cnn") == full + half + quarter + 128 * 10


@pytest.mark.parametrize("name", NAMES)
def test_tracing_changes_nothing(name: str) -> None:
    model = build(name, n_classes=7, in_channels=2).eval()
    images = torch.randn(2, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(images)
        assert logits.shape == (2, 7)
        assert torch.equal(torch.fx.symbolic_trace(model)(images), logits)


def test_convolutions_have_he_s_variance_and_the_linear_layer_no_bias() -> None:
    torch.manual_seed(0)
    model = build("vgg16_bn")
    conv = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
    assert conv.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    linear = model.get_submodule("classifier")
    assert isinstance(linear, nn.Linear) and not linear.bias.any()


def test_build_calls_what_a_module_has() -> None:
    assert isinstance(build("my_networks:small"), nn.Linear)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21", r"no network called 'resnet21'; choose one of resnet20, .*package\.module:callable"),
        ("no_such_package.x:y", r"ModuleNotFoundError: No module named 'no_such_package'.*package\.module:callable"),
        ("my_networks:nothing", r"AttributeError: .*'nothing'"),
        ("my_networks:a_number", r"TypeError: 'int' object is not callable"),
        ("my_networks:broken", r"'my_networks:broken' failed with RuntimeError: no such layer"),
        ("my_networks:not_a_model", r"returned a dict; it must return a torch\.nn\.Module"),
        (":", r"':' failed with ValueError"),
    ],
)
def test_what_is_no_network_is_named(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(name)
