"""Linear layers with activations between them, out of modules or arrays of whatever library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import RLPruneError

Layer = tuple[Tensor, Tensor]
"""Weight float32 (outputs, inputs), and bias float32 (outputs,)."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"Tanh": nn.Tanh, "ReLU": nn.ReLU, "ELU": nn.ELU, "SiLU": nn.SiLU}
"""What may stand between the layers of a policy, by name."""
_NOTHING = (nn.Identity, nn.Dropout, nn.Flatten)
"""Modules that do nothing to an observation once training is over."""


def linear_layers(source: Any, activation: str | None = None) -> tuple[list[Layer], str]:
    """Copies of a network's linear layers, and the name of the activation between them.

    Args:
        source: an `nn.Sequential`, an `nn.Linear`, or a list of these, of activations, and of pairs of arrays: weights
            (outputs, inputs), as torch has them, and biases (outputs,) or None.
        activation: `Tanh`, `ReLU`, `ELU` or `SiLU`, where `source` has none between its layers.

    Returns:
        The layers, and the activation; a last `Tanh`, which squashes actions, has become the activation before a layer
        that changes nothing.

    Raises:
        RLPruneError: there are other modules, other activations, or not the same one everywhere; or sizes do not fit.
    """
    layers: list[Layer] = []
    between: list[list[str]] = [[]]
    for part in _flat(source):
        if isinstance(part, nn.Module) and type(part) is not nn.Linear:
            between[-1].append(_activation(part))
        else:
            layers.append(_layer(part))
            between.append([])
    if not layers or between[0]:
        raise RLPruneError("a policy begins with a linear layer; none was found at the beginning of the network")
    if between[-1] == ["Tanh"]:
        n_outputs = len(layers[-1][1])
        layers.append((torch.eye(n_outputs), torch.zeros(n_outputs)))
        between.append([])
    return _fitting(layers), _common(between, activation)


def _flat(source: Any) -> Iterator[Any]:
    """The parts of nested lists and sequences, without those that do nothing."""
    if type(source) is nn.Sequential or isinstance(source, nn.ModuleList) or _is_list(source):
        for part in source:
            yield from _flat(part)
    elif not (isinstance(source, nn.Module) and type(source) in _NOTHING):
        yield source


def _is_list(source: Any) -> bool:
    """Whether it is a list of parts, not a pair of a weight and a bias."""
    if isinstance(source, nn.Module | str | Tensor) or not isinstance(source, Iterable) or hasattr(source, "shape"):
        return False
    parts = list(source)
    return not (len(parts) == 2 and getattr(parts[0], "ndim", None) == 2)


def _activation(module: nn.Module) -> str:
    """The name of an activation that a policy may have.

    Raises:
        RLPruneError: it may not.
    """
    name = next((name for name, kind in ACTIVATIONS.items() if type(module) is kind), None)
    if name is None or (isinstance(module, nn.ELU) and module.alpha != 1):
        raise RLPruneError(
            f"a policy cannot have {module} between its linear layers; allowed: {', '.join(ACTIVATIONS)}, the same one "
            "between all of them"
        )
    return name


def _layer(part: Any) -> Layer:
    """A copy of a layer.

    Raises:
        RLPruneError: it is no weight and bias.
    """
    weight, bias = (part.weight, part.bias) if isinstance(part, nn.Linear) else _pair(part)
    try:
        copied = torch.as_tensor(weight).detach().to("cpu", torch.float32, copy=True)
        added = torch.zeros(len(copied)) if bias is None else torch.as_tensor(bias)
        added = added.detach().to("cpu", torch.float32, copy=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RLPruneError(f"a layer's weight or bias is no array of numbers: {error}") from error
    if copied.ndim != 2 or added.shape != copied.shape[:1]:
        raise RLPruneError(
            f"a layer has a weight of shape {tuple(copied.shape)} and a bias of shape {tuple(added.shape)}; give "
            "weights as (outputs, inputs), transposed where a library has them the other way; biases as (outputs,)"
        )
    if not (copied.isfinite().all() and added.isfinite().all()):
        raise RLPruneError("a layer's weight or bias has numbers that are not finite; a policy cannot have such")
    return copied, added


def _pair(part: Any) -> tuple[Any, Any]:
    try:
        weight, bias = part
    except (TypeError, ValueError) as error:
        raise RLPruneError(
            f"a policy has no parts of type {type(part).__name__}; give linear layers, activations or pairs"
        ) from error
    return weight, bias


def _fitting(layers: list[Layer]) -> list[Layer]:
    """Layers of which each takes what the one before gives.

    Raises:
        RLPruneError: one does not.
    """
    for (before, _), (after, _) in pairwise(layers):
        if len(before) != after.shape[1]:
            raise RLPruneError(
                f"a layer gives {len(before)} numbers, and the next one takes {after.shape[1]}; give weights as "
                "(outputs, inputs), in the order in which the network runs them"
            )
    return layers


def _common(between: list[list[str]], activation: str | None) -> str:
    """The one activation that stands between all layers.

    Raises:
        RLPruneError: there are several, or none and none was named.
    """
    found = between[1:-1]
    names = {name for part in found for name in part}
    if between[-1]:
        raise RLPruneError(
            f"a policy ends with a linear layer, or with Tanh after it; this one ends with {', '.join(between[-1])}"
        )
    if not names and found:
        if activation is None:
            raise RLPruneError(f"activation is not given; name what is between the layers: {', '.join(ACTIVATIONS)}")
        return activation
    if len(names) > 1 or any(len(part) != 1 for part in found):
        raise RLPruneError(
            f"between the linear layers stand {[*map(', '.join, found)]}; a policy has the same activation, once, "
            f"between all of them: {', '.join(ACTIVATIONS)}"
        )
    (name,) = names or {activation or "Tanh"}
    if activation not in (None, name):
        raise RLPruneError(f"activation is {activation!r}, but the network has {name}; leave activation out")
    return name
