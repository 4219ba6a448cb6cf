"""Networks of timm and torchvision by name. No test here loads weights from anywhere."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlprune.errors import ModelError
from rlprune.models.libraries import own_preprocessing


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
        ModelError, match=r"timm has no pretrained weights of .* says nothing of its preprocessing; give"
    ):
        own_preprocessing(f"timm:{plain}")
