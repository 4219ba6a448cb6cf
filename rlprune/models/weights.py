"""Weight files: read without running any code in them, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from rlprune.errors import ModelError
from rlprune.models.checkpoints import Candidate, read_checkpoint
from rlprune.models.libraries import AUXILIARY
from rlprune.models.tensor_names import Match, first_names, match_names, required
from rlprune.utils.files import atomic_write, open_regular
from rlprune.utils.notes import say


class OtherClassesError(ModelError):
    """Weights whose last layer is for another number of classes, and fit otherwise.

    Args:
        path: the file.
        layer: a tensor of the last layer.
        n_classes: how many they are for.
        wanted: how many the network is for.
    """

    def __init__(self, path: Path, layer: str, n_classes: int, wanted: int) -> None:
        super().__init__(
            f"{path} is for {n_classes} classes and not for {wanted} ({layer} is its last layer): train a new one with "
            "`rlprune pretrain --weights`, and go on with what that writes"
        )
        self.n_classes = n_classes


def load_weights(model: nn.Module, path: str | Path, *, trust_pickle: bool = False, new_head: bool = False) -> None:
    """Load weights into a model; where they do not fit, the model stays as it was.

    One line is printed where the file's names were changed, or where one of several state dicts was chosen.

    Args:
        model: changed in place.
        path: ``.safetensors``; a PyTorch file (``.pt``, ``.pth``, ``.th``, ``.ckpt``, ``.bin``) with a state dict,
            alone or in a training checkpoint; or a folder of the Hugging Face hub. Averaged weights, under
            ``state_dict_ema`` or ``model_ema``, go before others. A prefix before the network's names, such as
            ``module.`` or ``model.``, is removed. Batch norms may lack ``num_batches_tracked``, and tensors that the
            network ties may be there once.
        trust_pickle: read whole objects and TorchScript, too, which runs code in the file.
        new_head: take weights for other classes, too: the last layer stays as it was built, and a line says so.

    Raises:
        ModelError: the file is missing, damaged, of another kind, needs pickle, does not fit the model, or has values
            that are not finite.
        OtherClassesError: it fits but for its last layer, which is for another number of classes.
    """
    path = Path(path)
    expected = model.state_dict()
    candidates = read_checkpoint(path, trust_pickle=trust_pickle)
    candidate, match = _choose(path, candidates, expected)
    weights = {name: value for name, value in match.weights.items() if name in expected or not _is_auxiliary(name)}
    head = _head_for_others(weights, expected)
    if head and new_head:
        weights = {name: value for name, value in weights.items() if name not in head}
        expected = {name: value for name, value in expected.items() if name not in head}
    _check_fit(path, type(model).__name__, replace(match, weights=weights), expected)
    _check_kinds(path, weights, expected)
    _check_finite(path, weights)
    said = [match.said] if match.said else []
    if len(weights) + len(head) * new_head < len(match.weights):
        said.append("auxiliary classifiers, which only training needs, are left out")
    if head and new_head:
        said.append(f"the last layer begins anew, because {' and '.join(head)} in the file are for others")
    others = [repr(each.key) for each in candidates if each is not candidate]
    if others:
        said.insert(0, f"took {candidate.key!r} and not {', '.join(others)}")
    elif not candidate.usual:
        said.insert(0, f"took {candidate.key!r}")
    if said:
        say(f"{path}: {'; '.join(said)}")
    model.load_state_dict(weights, strict=False)


def _choose(path: Path, candidates: list[Candidate], expected: Mapping[str, Tensor]) -> tuple[Candidate, Match]:
    """The first state dict under a usual key that fits, else the only other one; the first of all if none fits."""
    pairs = [(candidate, match_names(candidate.weights, expected)) for candidate in candidates]
    fitting = [pair for pair in pairs if pair[1].complete]
    usual = [pair for pair in fitting if pair[0].usual]
    keys = [candidate.key for candidate, _ in fitting]
    if usual:
        fitting = usual[:1]
    elif len(fitting) > 1:
        raise ModelError(
            f"{path} has weights of this network at {', '.join(map(repr, keys))}; save those you mean alone"
        )
    chosen = fitting[0] if fitting else pairs[0]
    if chosen[1].rivals:
        raise ModelError(
            f"{path} has weights of this network more than once ({chosen[1].said}; others begin with "
            f"{', '.join(map(repr, chosen[1].rivals))}); save those you mean alone"
        )
    return chosen


def _is_auxiliary(name: str) -> bool:
    """Whether a tensor belongs to what torchvision's GoogLeNet and Inception need for training alone."""
    return name.partition(".")[0] in AUXILIARY


def _head_for_others(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """The tensors of the last layer, if it has another number of outputs in a file, and nothing else differs."""
    other = [name for name, value in expected.items() if name in weights and value.shape != weights[name].shape]
    of_one_layer = len({name.rpartition(".")[0] for name in other}) == 1
    alike = all(weights[name].ndim and weights[name].shape[1:] == expected[name].shape[1:] for name in other)
    return other if of_one_layer and alike else []


def _check_fit(path: Path, network: str, match: Match, expected: Mapping[str, Tensor]) -> None:
    weights = match.weights
    missing = [key for key in required(expected) if key not in weights]
    unexpected = [key for key in weights if key not in expected]
    shapes = [
        f"{key} is {tuple(weights[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape
    ]
    problems = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    found = "; ".join(f"{what}: {first_names(keys)}" for what, keys in problems if keys)
    if found:
        renamed = f", {match.said}" if match.said else ""
        head = _head_for_others(weights, expected)
        if head and not missing and not unexpected:
            raise OtherClassesError(path, head[0], len(weights[head[0]]), len(expected[head[0]]))
        raise ModelError(f"{path} does not fit this {network} ({found}{renamed}); build the network it was saved from")


def _check_kinds(path: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Make sure that what is to be floats are floats, all of which are in the file."""
    bad = {
        name: value
        for name, value in weights.items()
        if name in expected
        and expected[name].is_floating_point()
        and (not value.is_floating_point() or value.layout != torch.strided or value.is_meta)
    }
    if bad:
        first = next(iter(bad.values()))
        held = "no values" if first.is_meta else f"{first.dtype}, {first.layout}"
        raise ModelError(
            f"{path} holds {held} in {first_names([*bad])}, and weights are dense floating-point numbers; save them "
            "from the network before it was quantised, made sparse or emptied"
        )


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    bad = [name for name, value in weights.items() if value.is_floating_point() and not value.float().isfinite().all()]
    if bad:
        raise ModelError(
            f"{path} has values that are not finite (NaN or infinite) in {first_names(bad)}; the training that made it "
            "diverged: take an earlier checkpoint, or train again at a lower learning rate"
        )


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


def notes_in_weights(path: str | Path) -> dict[str, str]:
    """The notes in a file that `save_weights` wrote; none in any other file or folder, or where there is nothing."""
    try:
        open_regular(Path(path)).close()  # a pipe would wait, and a device never end
        with safetensors.safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
            return dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        return {}


def save_weights(model: nn.Module, path: str | Path, notes: Mapping[str, str] | None = None) -> None:
    """Write a model's parameters and buffers to a ``.safetensors`` file, which is replaced whole or not at all.

    Args:
        model: the model.
        path: the file.
        notes: text to store with it, by name.
    """
    # Cloned, because safetensors refuses tensors that share memory or are not contiguous (tied, channels_last).
    weights = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }
    with atomic_write(Path(path)) as temporary:
        # Not `save_file`, which makes a temporary file of its own that a kill would leave for ever.
        temporary.write_bytes(safetensors.torch.save(weights, dict(notes or {})))
