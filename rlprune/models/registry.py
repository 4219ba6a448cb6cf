"""Builds networks by name, of this package, timm or torchvision, or by `package.module:callable`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from rlprune.errors import ModelError
from rlprune.models import libraries
from rlprune.models.architectures import Chain, ResNet
from rlprune.utils.finite import check_whole
from rlprune.utils.imports import call, find
from rlprune.utils.notes import say

_POOL = (0, 2)
# Simonyan & Zisserman 2015, table 1 D, with batch norm and one linear layer, as is usual for CIFAR.
_VGG16 = tuple(
    layer
    for channels, n in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    for layer in ((channels, 1),) * n + (_POOL,)
)
# M-CifarNet of Gao et al. 2019, "Dynamic Channel Pruning: Feature Boosting and Suppression".
_M_CIFARNET = ((64, 1), (64, 1), (128, 2), (128, 1), (128, 1), (192, 2), (192, 1), (192, 1))
_DIGITS_CNN = ((16, 1), _POOL, (64, 1), (64, 1), _POOL, (128, 1), (128, 1))

_BUILDERS: dict[str, Callable[[int, int], nn.Module]] = {
    **{f"resnet{6 * n + 2}": partial(ResNet, n) for n in (3, 5, 7, 9, 18)},
    "vgg16_bn": partial(Chain, _VGG16),
    "m_cifarnet": partial(Chain, _M_CIFARNET, first_padding=0),
    "digits_cnn": partial(Chain, _DIGITS_CNN),
}
NAMES: tuple[str, ...] = tuple(_BUILDERS)
"""Networks that `build` knows by name."""


def build(name: str, n_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build a CNN with fresh weights (He initialisation, or the library's own) in training mode.

    Args:
        name: one of `NAMES`; ``timm:...`` or ``torchvision:...``, a network of these libraries, whose tag of pretrained
            weights may follow; or ``package.module:callable``, which is called without arguments, chooses classes,
            channels and initialisation itself, and returns an `nn.Module`.
        n_classes: number of logits of a network built by name.
        in_channels: image channels of a network built by name.

    Raises:
        ModelError: the name is unknown, or the callable cannot be imported, raises, or returns something else.
        MissingExtraError: the library is not installed.
    """
    check_whole(n_classes=n_classes, in_channels=in_channels, least=1, most=2**20)
    if libraries.library_of(name) is not None:
        return libraries.build(name, n_classes, in_channels)
    if ":" in name:
        model = call(name, ModelError)
        if not isinstance(model, nn.Module):
            raise ModelError(f"{name!r} returned a {type(model).__name__}; it must return a torch.nn.Module")
        return model
    check(name)
    model = _BUILDERS[name](n_classes, in_channels)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def check(name: str, *, pretrained: bool = False) -> None:
    """Make sure that there is a network of that name, or a callable; what that does is seen when it is called.

    Args:
        name: as for `build`.
        pretrained: if it is one of timm or torchvision, load its pretrained weights once, so that they are there.

    Raises:
        ModelError: there is none, or it cannot be imported, or its weights cannot be had.
        MissingExtraError: the library is not installed.
    """
    if libraries.library_of(name) is not None:
        libraries.check(name)
        if pretrained:
            libraries.fetch(name)
    elif ":" in name:
        find(name, ModelError)
    elif name not in _BUILDERS:
        raise ModelError(
            f"there is no network called {name!r}; choose one of {', '.join(NAMES)}, one of timm or torchvision "
            "such as timm:resnet18 or torchvision:resnet18, or name your own as package.module:callable"
        )


def asks_for_fresh(weights: Path | None) -> bool:
    """Whether the word ``none`` stands in place of a file of weights."""
    return weights is not None and weights == Path("none") and not weights.exists()


def begin(name: str, n_classes: int, in_channels: int, *, new_head: bool = False) -> nn.Module:
    """Build a network as it is where nobody names its weights: one of a library has those that come with it.

    Args:
        name: as for `build`.
        n_classes: number of logits.
        in_channels: image channels.
        new_head: whether a pretrained network's last layer may begin anew; a line says so.

    Raises:
        ModelError: as for `build`; or the pretrained weights cannot be had, or are for other classes.
        MissingExtraError: the library is not installed.
    """
    library = libraries.library_of(name)
    if library is None:
        return build(name, n_classes, in_channels)
    known = libraries.pretrained_classes(name)
    if known != n_classes and not new_head:
        raise ModelError(
            f"the pretrained weights of {name} are for {known} classes, the images have {n_classes}: train a new head "
            f"with `rlprune pretrain --model {name}`, and give what that writes as --weights"
        )
    model = libraries.build(name, n_classes, in_channels, pretrained=True)
    head = "" if known == n_classes else f", its last layer anew for {n_classes} classes instead of {known}"
    say(f"{name} begins with {library}'s pretrained weights{head}; --weights none begins with fresh ones")
    return model


def check_outputs(model: nn.Module, image_shape: Sequence[int], n_classes: int) -> None:
    """Make sure that a network takes such images and returns a logit for every class.

    Args:
        model: any network, on the CPU; left in eval mode.
        image_shape: (C, H, W) of the images.
        n_classes: how many logits it must return.

    Raises:
        ModelError: it fails on such an image, or returns something else.
    """
    found = shape_of_output(model, image_shape)
    if found != (1, n_classes):
        raise ModelError(f"the network gives {found} for one image; logits of shape (1, {n_classes}) are needed")


@torch.no_grad()
def shape_of_output(model: nn.Module, image_shape: Sequence[int]) -> tuple[int, ...] | str:
    """What a network gives for one image: a tensor of that shape, or something of that type.

    Args:
        model: any network, on the CPU; left in eval mode.
        image_shape: (C, H, W) of the image.

    Raises:
        ModelError: it fails on such an image.
    """
    try:
        logits = model.eval()(torch.zeros(1, *image_shape))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"the network fails on an image of shape {tuple(image_shape)}: {reason}") from error
    return tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
