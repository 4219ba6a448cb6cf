"""CNNs by name or by ``package.module:callable``, and their weights, loaded without running code from the file."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.errors import ModelError, RLPruneError
from rlprune.files import atomic_write


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (He et al. 2016, option A).

    Where the block halves the resolution, the shortcut takes every second pixel and pads new channels with zeros.

    Args:
        in_channels: channels of the input.
        channels: channels of the output, at least ``in_channels``.
        stride: 1, or 2 to halve the resolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.n_padded = (channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride != 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.n_padded, self.n_padded))
        return F.relu(out + x)


class ResNet(nn.Module):
    """CIFAR ResNet of depth ``6 n + 2`` with 16, 32 and 64 channels (He et al. 2016, section 4.2).

    Parameter names are those of github.com/akamaster/pytorch_resnet_cifar10, whose weights it loads.

    Args:
        n_blocks: blocks in each of the three stages.
        n_classes: logits.
        in_channels: channels of the images.
    """

    def __init__(self, n_blocks: int, n_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(n_blocks, 16, 16, stride=1)
        self.layer2 = _stage(n_blocks, 16, 32, stride=2)
        self.layer3 = _stage(n_blocks, 32, 64, stride=2)
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, n_classes)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


def _stage(n_blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(n_blocks - 1)))


class Chain(nn.Module):
    """A plain CNN: ``features``, a global average pool, and one linear ``classifier``.

    Args:
        plan: (channels, stride) of each 3x3 convolution, which batch norm and ReLU follow; 0 channels is a max pool.
        n_classes: logits.
        in_channels: channels of the images.
        first_padding: pixels of zeros around the images; all other convolutions have 1.
    """

    def __init__(
        self, plan: tuple[tuple[int, int], ...], n_classes: int, in_channels: int, first_padding: int = 1
    ) -> None:
        super().__init__()
        self.features, padding = nn.Sequential(), first_padding
        for channels, stride in plan:
            if channels == 0:
                self.features.append(nn.MaxPool2d(stride))
                continue
            self.features.append(nn.Conv2d(in_channels, channels, 3, stride, padding, bias=False))
            self.features.append(nn.BatchNorm2d(channels))
            self.features.append(nn.ReLU())
            in_channels, padding = channels, 1
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(in_channels, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, n_classes)."""
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


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


def build(name: str, n_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build a CNN with fresh weights (He initialisation) in training mode.

    Args:
        name: one of `NAMES`, or ``package.module:callable``; the callable is called without arguments, decides about
            classes, channels and initialisation itself, and returns an `nn.Module`.
        n_classes: logits of a network built by name.
        in_channels: image channels of a network built by name.

    Raises:
        ModelError: the name is unknown, or the callable cannot be imported, raises, or returns something else.
    """
    if ":" in name:
        model = call(name, ModelError)
        if not isinstance(model, nn.Module):
            raise ModelError(f"{name!r} returned a {type(model).__name__}; it must return a torch.nn.Module")
        return model
    if name not in _BUILDERS:
        raise ModelError(
            f"there is no network called {name!r}; choose one of {', '.join(NAMES)}, or name your own as "
            "package.module:callable"
        )
    model = _BUILDERS[name](n_classes, in_channels)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def call(source: str, error: type[RLPruneError]) -> Any:
    """Import ``package.module:callable``, call it without arguments and return what it returns.

    Args:
        source: the callable, such as ``"my_package.networks:small"``.
        error: what to raise when that fails.

    Raises:
        RLPruneError: an ``error``, because the callable cannot be imported, is none, or raised.
    """
    module, _, name = source.partition(":")
    try:
        return getattr(importlib.import_module(module), name)()
    except Exception as reason:
        raise error(
            f"{source!r} failed with {type(reason).__name__}: {reason}; give package.module:callable, with the package "
            "on Python's path and a function or class that works without arguments"
        ) from reason


@torch.no_grad()
def check_outputs(model: nn.Module, image_shape: Sequence[int], n_classes: int) -> None:
    """Make sure that a network takes the images and tells the classes.

    Args:
        model: any network, on the CPU; left in eval mode.
        image_shape: (C, H, W) of the images.
        n_classes: how many logits it has to give.

    Raises:
        ModelError: it fails on such an image, or gives something else.
    """
    try:
        logits = model.eval()(torch.zeros(1, *image_shape))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"the network fails on an image of shape {tuple(image_shape)}: {reason}") from error
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != (1, n_classes):
        raise ModelError(f"the network gives {found} for one image; logits of shape (1, {n_classes}) are needed")


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load weights into a model, all of them or, when they do not fit, none.

    Args:
        model: changed in place.
        path: ``.safetensors``, or a PyTorch file (``.pt``, ``.pth``, ``.th``, ``.bin``) that holds nothing but tensors;
            there, a wrapping ``state_dict`` or ``model`` key and the prefix ``module.`` are taken off. Batch norms may
            lack ``num_batches_tracked``.

    Raises:
        ModelError: the file is missing, damaged, of another kind, needs pickle, or does not fit the model.
    """
    path = Path(path)
    weights = _read_weights(path)
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in wanted]
    shapes = [
        f"{key} is {tuple(weights[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in weights and weights[key].shape != wanted[key].shape
    ]
    problems = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    found = "; ".join(f"{what}: {_first(keys)}" for what, keys in problems if keys)
    if found:
        raise ModelError(
            f"{path} does not fit this {type(model).__name__} ({found}); build the network it was saved from"
        )
    model.load_state_dict(weights, strict=False)


def find_weights(name: str, beside: Path) -> Path:
    """Weights that a recipe names, a file or a folder: in ``$RLPRUNE_WEIGHTS``, else beside the recipe.

    Raises:
        ModelError: it is in neither place.
    """
    folders = [Path(root) for root in (os.environ.get("RLPRUNE_WEIGHTS"),) if root] + [beside]
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    places = " or ".join(map(str, folders))
    raise ModelError(f"there is no weights file {name} in {places}; let RLPRUNE_WEIGHTS name the folder that has it")


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's parameters and buffers to a ``.safetensors`` file, which is replaced whole or not at all."""
    # Cloned, because safetensors refuses tensors that share memory or are not contiguous (tied, channels_last).
    weights = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }
    with atomic_write(Path(path)) as temporary:
        safetensors.torch.save_file(weights, temporary)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"there is no weights file {path}; give a .safetensors, .pt, .pth, .th or .bin file")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{path} cannot be read: it is damaged or needs pickle, which is never run ({type(error).__name__}); "
            "convert it with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ModelError(f"{path} holds no state dict of tensors; save model.state_dict() instead")
    prefix = "module." if all(str(key).startswith("module.") for key in found) else ""
    return {str(key).removeprefix(prefix): value for key, value in found.items()}


def _first(keys: list[str], n: int = 3) -> str:
    return ", ".join(keys[:n]) + (f" and {len(keys) - n} more" if len(keys) > n else "")
