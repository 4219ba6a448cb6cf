"""Weight files: read without running any code in them, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from rlprune.errors import ModelError
from rlprune.utils.files import atomic_write


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load weights into a model; where they do not fit, the model stays as it was.

    Args:
        model: changed in place.
        path: ``.safetensors``, or a PyTorch file (``.pt``, ``.pth``, ``.th``, ``.bin``) that holds nothing but tensors;
            there, a wrapping ``state_dict`` or ``model`` key and the prefix ``module.`` are removed. Batch norms may
            lack ``num_batches_tracked``.

    Raises:
        ModelError: the file is missing, damaged, of another kind, needs pickle, or does not fit the model.
    """
    path = Path(path)
    weights = _read_weights(path)
    expected = model.state_dict()
    missing = [key for key in expected if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in expected]
    shapes = [
        f"{key} is {tuple(weights[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape
    ]
    problems = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    found = "; ".join(f"{what}: {_first(keys)}" for what, keys in problems if keys)
    if found:
        raise ModelError(
            f"{path} does not fit this {type(model).__name__} ({found}); build the network it was saved from"
        )
    model.load_state_dict(weights, strict=False)


def find_weights(name: str, recipe_dir: Path) -> Path:
    """Find the weights, a file or a folder, that a recipe names: in ``$RLPRUNE_WEIGHTS``, else in the recipe's folder.

    Args:
        name: path relative to one of these folders.
        recipe_dir: the recipe's folder.

    Raises:
        ModelError: it is in neither place.
    """
    root = os.environ.get("RLPRUNE_WEIGHTS")
    folders = [Path(root), recipe_dir] if root else [recipe_dir]
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
    return _state_dict_in(found, path)


def _state_dict_in(found: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a PyTorch file held, without a wrapping key or the prefix of data parallelism."""
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ModelError(f"{path} holds no state dict of tensors; save model.state_dict() instead")
    prefix = "module." if all(str(key).startswith("module.") for key in found) else ""
    return {str(key).removeprefix(prefix): value for key, value in found.items()}


def _first(keys: list[str], n: int = 3) -> str:
    return ", ".join(keys[:n]) + (f" and {len(keys) - n} more" if len(keys) > n else "")
