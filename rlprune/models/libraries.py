"""The networks of timm and torchvision by name, with their pretrained weights and their own preprocessing."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from rlprune.errors import ModelError
from rlprune.models.hub import cache_if_unreachable
from rlprune.utils.imports import require

LIBRARIES = ("timm", "torchvision")
"""What may stand before the colon of a network's name."""
AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""What torchvision calls the classifiers of GoogLeNet and Inception that only training needs."""
_STUBS: list[torch.library.Library] = []


def library_of(name: str) -> str | None:
    """The library that a network's name begins with, as in ``timm:efficientnet_b0``; None if it is another name."""
    prefix, colon, _ = name.partition(":")
    return prefix if colon and prefix in LIBRARIES else None


def build(name: str, n_classes: int, in_channels: int, *, pretrained: bool = False) -> nn.Module:
    """Build a library's network in training mode.

    Auxiliary classifiers, which some have for training, are left out.

    Args:
        name: as for `own_preprocessing`.
        n_classes: number of logits.
        in_channels: image channels; torchvision's networks have three.
        pretrained: load the library's own weights, which it fetches unless it has them already; the last layer begins
            anew where it does not have ``n_classes`` logits.

    Raises:
        ModelError: no such network, or not of so many channels; or its weights cannot be had.
        MissingExtraError: the library is not installed.
    """
    library, plain = _parts(name)
    if library == "timm":
        return _build_timm(plain, n_classes, in_channels, pretrained)
    if in_channels != 3:
        raise ModelError(
            f"torchvision's networks take images of 3 channels, these have {in_channels}; name one of timm, whose "
            "networks take any number, or make the images RGB"
        )
    return _build_torchvision(plain, n_classes, pretrained)


def check(name: str) -> None:
    """Make sure that a library has a network.

    Raises:
        ModelError: it has not.
        MissingExtraError: the library is not installed.
    """
    library, plain = _parts(name)
    if library == "timm":
        _timm_cfg(plain)
    else:
        _torchvision_weights(plain)


def fetch(name: str) -> None:
    """Load the pretrained weights of a library's network once, so that they are there, and known to be.

    Raises:
        ModelError: no such network, or its weights cannot be had.
        MissingExtraError: the library is not installed.
    """
    build(name, pretrained_classes(name), 3, pretrained=True)


def pretrained_classes(name: str) -> int:
    """How many classes the pretrained weights of a library's network are for; 0 if they have no classifier.

    Raises:
        ModelError: no such network, or no weights of it.
    """
    library, plain = _parts(name)
    if library == "timm":
        return int(_timm_with_weights(plain).num_classes or 0)
    return len(_torchvision_with_weights(plain).meta["categories"])


def class_names(name: str) -> list[str]:
    """The classes that the pretrained weights of a library's network are for, in the order of its logits.

    Returns:
        As torchvision calls them; or as timm does, which are WordNet's ids unless it has names. Empty where the library
        does not say.

    Raises:
        ModelError: no such network, or no weights of it.
    """
    library, plain = _parts(name)
    if library == "torchvision":
        return list(_torchvision_with_weights(plain).meta["categories"])
    cfg = _timm_with_weights(plain).to_dict()
    if cfg.get("label_names"):
        return list(cfg["label_names"])
    data = import_library("timm.data")
    subset = data.infer_imagenet_subset(cfg)
    return list(data.ImageNetInfo(subset).label_names()) if subset else []


def own_preprocessing(name: str) -> dict[str, Any]:
    """How a library's pretrained network wants its pictures prepared: as its transforms for evaluation do it.

    Args:
        name: ``timm:...`` or ``torchvision:...``; a tag of its weights may follow, as in ``timm:resnet18.a1_in1k`` or
            ``torchvision:resnet50.IMAGENET1K_V1``. Without one, those are meant that the library takes by default.

    Returns:
        Plain values:

        - ``library``: ``"timm"`` or ``"torchvision"``;
        - ``crop``: (height, width) that is cut out of the middle;
        - ``resize``: length of the shorter side before that; or (height, width), see ``crop_mode``;
        - ``crop_mode``: ``"center"``: scale the shorter side to ``resize``; ``"cover"``: keep the aspect ratio and
          cover it; ``"squash"``: scale to it whatever the aspect ratio; ``"border"``: keep the aspect ratio, fit into
          it, pad up to ``crop``;
        - ``fill``: the colour of that padding, 0 to 255 for each channel;
        - ``interpolation``: ``"bilinear"``, ``"bicubic"``, ``"nearest"``, or another of Pillow's;
        - ``antialias``: whether that smooths, as Pillow always does;
        - ``mean`` and ``std``: for each channel, of values in [0, 1];
        - ``crop_pct``: the share of the resized side that is kept.

    Raises:
        ModelError: no such network, or the library says nothing of its preprocessing.
        MissingExtraError: the library is not installed.
    """
    library, plain = _parts(name)
    return _timm_preprocessing(plain) if library == "timm" else _torchvision_preprocessing(plain)


def _parts(name: str) -> tuple[str, str]:
    """The library and the name within it."""
    prefix, _, plain = name.partition(":")
    library = "torchvision" if prefix == "torchvision.models" else prefix
    if library not in LIBRARIES:
        raise ModelError(
            f"{name!r} is no network of timm or torchvision; name one, such as timm:resnet18 or torchvision:resnet18"
        )
    return library, plain


# ---- timm


def _timm_cfg(plain: str) -> Any:
    """What timm knows of the pretrained weights of a network, which may have a tag."""
    models = import_library("timm.models")
    architecture, _, tag = plain.partition(".")
    if not models.is_model(architecture):
        raise _unknown("timm", "network", plain, models.list_models())
    tags = [each.partition(".")[2] for each in models.list_models(f"{architecture}.*", include_tags=True)]
    if tag and tag not in tags:
        raise _unknown("timm", f"weights of {architecture}", plain, [f"{architecture}.{each}" for each in tags if each])
    return models.get_pretrained_cfg(plain)


def _timm_with_weights(plain: str) -> Any:
    """The same, of a network that has some."""
    cfg = _timm_cfg(plain)
    if cfg is None or not cfg.has_weights:
        raise _no_weights("timm", plain)
    return cfg


def _build_timm(plain: str, n_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    make = partial(import_library("timm").create_model, plain, num_classes=n_classes, in_chans=in_channels)
    if not pretrained:
        _timm_cfg(plain)  # or there is no such network
        return _made(f"timm:{plain}", None, make)
    cfg = _timm_with_weights(plain)
    source = f"https://huggingface.co/{cfg.hf_hub_id}" if cfg.hf_hub_id else cfg.url
    with cache_if_unreachable():
        return _made(f"timm:{plain}", source, partial(make, pretrained=True))


def _timm_preprocessing(plain: str) -> dict[str, Any]:
    cfg = _timm_with_weights(plain)
    found = import_library("timm.data").resolve_data_config(pretrained_cfg=cfg.to_dict())
    height, width = found["input_size"][-2:]
    full = tuple(math.floor(side / found["crop_pct"]) for side in (height, width))
    shorter_side = found["crop_mode"] == "center" and full[0] == full[1]
    return {
        "library": "timm",
        "resize": full[0] if shorter_side else full,
        "crop": (height, width),
        "crop_mode": "cover" if found["crop_mode"] == "center" and not shorter_side else found["crop_mode"],
        "crop_pct": float(found["crop_pct"]),
        "fill": tuple(round(255 * value) for value in found["mean"]),
        "interpolation": found["interpolation"],
        "antialias": True,
        "mean": tuple(map(float, found["mean"])),
        "std": tuple(map(float, found["std"])),
    }


# ---- torchvision


def _torchvision_weights(plain: str) -> Any:
    """The weights of a network that a tag names, or else its default ones; None if there are none of it."""
    models = import_library("torchvision.models")
    architecture, _, tag = plain.partition(".")
    known = models.list_models(module=models)
    if architecture not in known:
        raise _unknown("torchvision", "network", plain, known)
    weights = models.get_model_weights(architecture)
    tags = list(weights.__members__)  # DEFAULT among them
    if tag and tag not in tags:
        raise _unknown("torchvision", f"weights of {architecture}", plain, [f"{architecture}.{each}" for each in tags])
    return weights[tag or "DEFAULT"] if tags else None


def _torchvision_with_weights(plain: str) -> Any:
    """The same, of a network that has some."""
    weights = _torchvision_weights(plain)
    if weights is None:
        raise _no_weights("torchvision", plain)
    return weights


def _build_torchvision(plain: str, n_classes: int, pretrained: bool) -> nn.Module:
    weights = _torchvision_with_weights(plain) if pretrained else _torchvision_weights(plain)
    architecture = plain.partition(".")[0]
    get_model = import_library("torchvision.models").get_model
    # Both take what others normalise with ImageNet's figures, whatever weights are loaded into them later.
    options = {"aux_logits": False, "transform_input": True} if architecture in ("googlenet", "inception_v3") else {}
    if pretrained:
        trained = _made(f"torchvision:{plain}", weights.url, partial(get_model, architecture, weights=weights))
        _drop_auxiliary(trained)
        if n_classes == len(weights.meta["categories"]):
            return trained
    if options:
        options["init_weights"] = not pretrained
    model = _made(f"torchvision:{plain}", None, partial(get_model, architecture, num_classes=n_classes, **options))
    if pretrained:
        own = model.state_dict()
        fitting = {key: value for key, value in trained.state_dict().items() if value.shape == own[key].shape}
        model.load_state_dict(fitting, strict=False)
    return model


def _drop_auxiliary(model: nn.Module) -> None:
    """Take the classifiers off that only training needs, with which torchvision's weights come."""
    for name in AUXILIARY:
        if hasattr(model, name):
            setattr(model, name, None)
            model.aux_logits = False  # type: ignore[assignment]


def _torchvision_preprocessing(plain: str) -> dict[str, Any]:
    found = _torchvision_with_weights(plain).transforms()
    resize = [int(side) for side in found.resize_size]
    crop = [int(side) for side in found.crop_size]
    return {
        "library": "torchvision",
        "resize": resize[0] if len(resize) == 1 else tuple(resize),
        "crop": (crop[0], crop[-1]),
        "crop_mode": "center" if len(resize) == 1 else "squash",
        "crop_pct": crop[0] / resize[0],
        "fill": (0, 0, 0),  # of torchvision's crop, where a picture is smaller
        "interpolation": str(found.interpolation.value),
        "antialias": bool(found.antialias),
        "mean": tuple(map(float, found.mean)),
        "std": tuple(map(float, found.std)),
    }


# ---- both


def _made(name: str, source: str | None, make: Callable[[], nn.Module]) -> nn.Module:
    """What a library makes.

    Raises:
        ModelError: it does not; where weights were to come from the source, that is why.
    """
    try:
        model = make()
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0].partition(". ")[0]
        if source is None:
            raise ModelError(f"{name} cannot be built ({reason})") from error
        raise ModelError(
            f"the pretrained weights of {name} cannot be had from {source} ({reason}); connect this machine, or give "
            "a file of them with --weights"
        ) from error
    return model.train()


def import_library(module: str) -> ModuleType:
    """A module of timm or torchvision, also where torchvision was built for another PyTorch; timm imports torchvision.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        require("torchvision", module.partition(".")[0])
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _define_operators()
    return require(module, module.partition(".")[0])


def _define_operators() -> None:
    """Declare the operators that torchvision asks for as it is imported, where it was built for another PyTorch.

    They are of detection; no network of these needs them.
    """
    stubs = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            stubs.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    _STUBS.append(stubs)  # they live as long as this


def _unknown(library: str, what: str, name: str, known: list[str]) -> ModelError:
    """That there is no such thing, with those that are called almost so."""
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    near = f"; did you mean {', '.join(f'{library}:{each}' for each in close)}?" if close else ""
    return ModelError(f"{library} has no {what} called {name!r}{near}")


def _no_weights(library: str, plain: str) -> ModelError:
    """That there are no weights, and nothing said of them."""
    return ModelError(
        f"{library} has no pretrained weights of {plain!r}, and says nothing of its preprocessing; give a file with "
        "--weights, and the values that it was trained with, such as --preprocess resize=256,crop=224,imagenet"
    )
