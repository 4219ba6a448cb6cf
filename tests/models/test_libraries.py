"""Networks of timm and torchvision by name. No test here loads weights from anywhere."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlprune.errors import MissingExtraError, ModelError
from rlprune.models import hub, registry
from rlprune.models.libraries import build, fetch, own_preprocessing, pretrained_classes


@pytest.fixture
def libraries() -> dict[str, ModuleType]:
    """Both of them, as this project imports them."""
    for name in ("timm", "torchvision"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    own_preprocessing("timm:resnet18")
    modules = ("timm", "timm.data", "torchvision.models", "torchvision.transforms.functional")
    return {name: importlib.import_module(name) for name in modules}


def photograph(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def prepared(image: Image.Image, values: dict[str, Any]) -> torch.Tensor:
    """What the values say, with torchvision's functions."""
    functional = importlib.import_module("torchvision.transforms.functional")
    mode = functional.InterpolationMode(values["interpolation"])
    size = values["resize"]
    if values["crop_mode"] == "border":
        ratio = max(image.height / size[0], image.width / size[1])
        size = (round(image.height / ratio), round(image.width / ratio))
    image = functional.resize(image, size, mode, antialias=values["antialias"])
    if values["crop_mode"] == "border":
        height, width = values["crop"]
        left, top = (max(width - image.width, 0) // 2, max(height - image.height, 0) // 2)
        right, bottom = (max((width - image.width + 1) // 2, 0), max((height - image.height + 1) // 2, 0))
        image = functional.pad(image, [left, top, right, bottom], fill=values["fill"])
    image = functional.center_crop(image, values["crop"])
    return functional.normalize(functional.to_tensor(image), values["mean"], values["std"])


@pytest.mark.parametrize(
    "name", ["resnet18", "inception_v3", "efficientnet_b0.ra_in1k", "convnext_nano", "vit_base_patch16_siglip_256"]
)
def test_timm_s_own_preprocessing_is_that_of_its_transforms(libraries: dict[str, ModuleType], name: str) -> None:
    timm = libraries["timm"]
    cfg = timm.get_pretrained_cfg(name).to_dict()
    transform = libraries["timm.data"].create_transform(
        **libraries["timm.data"].resolve_data_config(pretrained_cfg=cfg), is_training=False
    )
    image = photograph(391, 280)
    assert torch.equal(prepared(image, own_preprocessing(f"timm:{name}")), transform(image))


@pytest.mark.parametrize(
    "name", ["mobilenet_v2.IMAGENET1K_V1", "mobilenet_v2", "inception_v3", "regnet_y_16gf", "swin_t"]
)
def test_torchvision_s_own_preprocessing_is_that_of_its_transforms(libraries: dict[str, ModuleType], name: str) -> None:
    architecture, _, tag = name.partition(".")
    weights = libraries["torchvision.models"].get_model_weights(architecture)[tag or "DEFAULT"]
    image = photograph(391, 280)
    values = own_preprocessing(f"torchvision:{name}")
    assert torch.equal(prepared(image, values), weights.transforms()(image))
    assert own_preprocessing(f"torchvision.models:{name}") == values


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:efficentnet_b0", r"timm has no network called 'efficentnet_b0'; did you mean timm:efficientnet_b0"),
        ("timm:resnet18.a9_in1k", r"no weights of resnet18 called 'resnet18.a9_in1k'; did you mean .*resnet18.a1_in1k"),
        ("torchvision:resnet19", r"torchvision has no network called 'resnet19'; did you mean .*torchvision:resnet18"),
        ("torchvision:resnet50.V2", r"no weights of resnet50 called 'resnet50.V2'.*resnet50.IMAGENET1K_V2"),
        ("torchvision:fcn_resnet50", r"torchvision has no network called 'fcn_resnet50'"),
        ("timm:resnet10t_of_mine", r"timm has no network called 'resnet10t_of_mine'"),
        ("my_networks:resnet18", r"'my_networks:resnet18' is no network of timm or torchvision; name one, such as"),
        ("resnet20", r"'resnet20' is no network of timm or torchvision"),
    ],
)
def test_what_the_libraries_do_not_have_is_named(libraries: dict[str, ModuleType], name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        own_preprocessing(name)


def test_a_network_without_weights_says_nothing_of_its_preprocessing(libraries: dict[str, ModuleType]) -> None:
    timm = libraries["timm"]
    known = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
    plain = next(name for name in timm.list_models() if name not in known)
    with pytest.raises(
        ModelError, match=r"timm has no pretrained weights of .* says nothing of its preprocessing; give a file"
    ):
        own_preprocessing(f"timm:{plain}")


NAMES = ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5"]


@pytest.fixture
def published(libraries: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets a library's loader find weights, all 0.01, without a connection."""

    def publish(name: str) -> None:
        weights = {key: torch.full_like(value, 0.01) for key, value in build(name, 1000, 3).state_dict().items()}
        monkeypatch.setattr(hub, "answers", lambda url: True)
        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(weights))
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(weights))

    return publish


@pytest.fixture
def unconnected(libraries: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection, and nothing that was loaded before."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_a_library_s_network_has_the_logits_that_are_asked_for(libraries: dict[str, ModuleType], name: str) -> None:
    model = registry.build(name, 7, 3)
    assert model.training
    assert model.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_timm_takes_any_number_of_channels_and_torchvision_three(libraries: dict[str, ModuleType]) -> None:
    assert registry.build("timm:test_resnet", 7, 1).eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 7)
    with pytest.raises(
        ModelError, match=r"torchvision's networks take images of 3 channels, these have 1; name one of"
    ):
        registry.build("torchvision:resnet18", 7, 1)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_left_out(libraries: dict[str, ModuleType], name: str) -> None:
    model = registry.build(f"torchvision:{name}", 3, 3)
    assert model(torch.rand(2, 3, 96, 96)).shape == (2, 3)  # and nothing else, though it trains
    assert not any("aux" in key.lower() for key in model.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_weights_are_the_library_s_and_a_new_head_is_not(
    published: Callable[[str], None], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    published(name)
    fetch(name)
    with pytest.raises(
        ModelError, match=rf"weights of {name} are for 1000 classes, the images have 5.*rlprune pretrain"
    ):
        registry.begin(name, 5, 3)
    *features, weight, bias = registry.begin(name, 5, 3, new_head=True).parameters()
    assert all(bool((value == 0.01).all()) for value in features)
    assert weight.shape[0] == bias.shape[0] == 5 and weight.std() > 0
    assert f"{name} begins with" in capsys.readouterr().err
    assert all(bool((value == 0.01).all()) for value in registry.begin(name, 1000, 3).parameters())


@pytest.mark.parametrize("name", NAMES)
def test_without_a_connection_one_line_names_the_place_and_weights(
    unconnected: None, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    place = "huggingface.co/timm/test_resnet" if name.startswith("timm") else "download.pytorch.org/models/shufflenet"
    with pytest.raises(ModelError, match=rf"weights of {name} cannot be had from https://{place}.*--weights") as error:
        registry.check(name, pretrained=True)
    assert "\n" not in str(error.value)
    assert "Retrying" not in capfd.readouterr().err


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_is_missing_is_named_with_its_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=rf"needs the package 'torchvision'.*'rlprune\[{library}\]'"):
        registry.check(f"{library}:resnet18")


def test_other_names_are_no_library_s(libraries: dict[str, ModuleType]) -> None:
    assert pretrained_classes("timm:resnet18") == pretrained_classes("torchvision:resnet18") == 1000
    assert registry.begin("resnet20", 5, 3).training
    assert not registry.asks_for_fresh(None) and registry.asks_for_fresh(Path("none"))
    with pytest.raises(ModelError, match=r"no network called 'resnet21'.*timm:resnet18"):
        registry.check("resnet21")
