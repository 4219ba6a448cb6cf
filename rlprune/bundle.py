"""Folders that hold a network, a policy, or both: safetensors and JSON, checked by SHA-256, no pickle and no code.

| kind | files |
|---|---|
| network | `network.json`, `network.safetensors` |
| policy | `policy.json`, `policy.safetensors` |
| bundle | all four |
| gated | `network.json`, `network.safetensors`: a network with gates of its own, which needs no policy |
| plain | `network.json`, `network.safetensors`: an ordinary network |

Each also has `manifest.json`, with versions, what the data look like, what its maker wanted to say (`about`) and the
SHA-256 of each file; and `manifest.sha256`, as `sha256sum --check` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, fx, nn

from rlprune import graph
from rlprune.data import ImageSet
from rlprune.elastic import ElasticCNN
from rlprune.folders import dump, malformed, read_folder, write_folder
from rlprune.gated import GatedCNN
from rlprune.policy import Policy
from rlprune.runtime import DynamicCNN, check_fit
from rlprune.structure import describe, rebuild


@dataclass(frozen=True)
class DataFormat:
    """What a network expects of images, and what its classes are called."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class SavedNetwork:
    """An elastic network with its data format and notes."""

    network: ElasticCNN
    data: DataFormat
    about: dict[str, Any]


@dataclass(frozen=True)
class SavedPolicy:
    """A policy with its notes."""

    policy: Policy
    about: dict[str, Any]


@dataclass(frozen=True)
class SavedGated:
    """A gated network with its data format and notes."""

    network: GatedCNN
    data: DataFormat
    about: dict[str, Any]


@dataclass(frozen=True)
class SavedPlain:
    """An ordinary network, normalised images -> logits, with its data format and notes."""

    network: nn.Sequential
    image_shape: tuple[int, ...]
    data: DataFormat
    about: dict[str, Any]


def save_network(
    folder: Path, network: ElasticCNN, data: DataFormat | ImageSet, about: Mapping[str, Any] | None = None
) -> None:
    """Write an elastic network; the folder appears or is replaced as a whole.

    Args:
        folder: to write.
        network: the network.
        data: an image set of its kind, or just the format: normalisation and class names.
        about: notes to keep, as JSON can hold them.

    Raises:
        ModelError: the network holds something that cannot be stored without its code.
    """
    write_folder(folder, "network", _network_files(network), {"data": _format_json(data), "about": dict(about or {})})


def load_network(folder: Path) -> SavedNetwork:
    """Read an elastic network, from its own folder or out of a bundle.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind.
    """
    files, manifest = read_folder(folder, ("network", "bundle"))
    return SavedNetwork(_network(files), _format(manifest), manifest["about"])


def save_policy(folder: Path, policy: Policy, about: Mapping[str, Any]) -> None:
    """Write a policy; the folder appears or is replaced as a whole."""
    write_folder(folder, "policy", _policy_files(policy), {"about": dict(about or {})})


def load_policy(folder: Path) -> SavedPolicy:
    """Read a policy, from its own folder or out of a bundle.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind.
    """
    files, manifest = read_folder(folder, ("policy", "bundle"))
    return SavedPolicy(_policy(files), manifest["about"])


def save_gated(
    folder: Path, network: GatedCNN, data: DataFormat | ImageSet, about: Mapping[str, Any] | None = None
) -> None:
    """Write a gated network, and the elastic one it is of; the folder appears or is replaced as a whole.

    The arguments are those of `save_network`.

    Raises:
        ModelError: the network holds something that cannot be stored without its code.
    """
    gates = {"kind": network.kind, "reduction": network.reduction, "threshold": network.threshold}
    description = {"elastic": describe(network.source[0]), "gates": gates}
    parts = {"gated": network, "elastic": network.source[0]}
    tensors = {f"{part}.{name}": tensor for part, of in parts.items() for name, tensor in of.state_dict().items()}
    files = {"network.json": dump(description), "network.safetensors": _pack(tensors)}
    write_folder(folder, "gated", files, {"data": _format_json(data), "about": dict(about or {})})


def load_gated(folder: Path) -> SavedGated:
    """Read a gated network.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind.
    """
    files, manifest = read_folder(folder, ("gated",))
    with malformed("network"):
        description, tensors = json.loads(files["network.json"]), load_tensors(files["network.safetensors"])
        elastic = rebuild(description["elastic"])
        elastic.load_state_dict(_under("elastic.", tensors))
        network = GatedCNN(elastic, **description["gates"])
        network.load_state_dict(_under("gated.", tensors))
    return SavedGated(network.eval(), _format(manifest), manifest["about"])


def save_plain(
    folder: Path,
    network: nn.Sequential,
    image_shape: Sequence[int],
    data: DataFormat | ImageSet,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write an ordinary network, a sequence of graphs such as `ElasticCNN.slice` gives, for images (C, H, W).

    The other arguments are those of `save_network`.

    Raises:
        ModelError: the network holds something that cannot be stored without its code.
    """
    parts = {name: graph.to_json(cast(fx.GraphModule, part)) for name, part in network.named_children()}
    description = {"image_shape": list(image_shape), "parts": parts}
    files = {"network.json": dump(description), "network.safetensors": _pack(network.state_dict())}
    write_folder(folder, "plain", files, {"data": _format_json(data), "about": dict(about or {})})


def load_plain(folder: Path) -> SavedPlain:
    """Read an ordinary network.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind.
    """
    files, manifest = read_folder(folder, ("plain",))
    network = nn.Sequential()
    with malformed("network"):
        description = json.loads(files["network.json"])
        image_shape = tuple(int(size) for size in description["image_shape"])
        for name, part in description["parts"].items():
            network.add_module(name, graph.from_json(part))
        network.load_state_dict(load_tensors(files["network.safetensors"]))
    return SavedPlain(network.eval(), image_shape, _format(manifest), manifest["about"])


def save_bundle(
    folder: Path,
    network: ElasticCNN,
    policy: Policy,
    data: DataFormat | ImageSet,
    about: Mapping[str, Any] | None = None,
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Write network and policy together, as `load` reads them; the folder appears or is replaced as a whole.

    Args:
        folder: to write.
        network: the network.
        policy: the policy, with its codebook.
        data: an image set of its kind, or just the format: normalisation and class names.
        about: notes to keep, as JSON can hold them.
        more: further files by name, such as what `rlprune.onnx.to_onnx` gives.

    Raises:
        BundleError: the policy was trained for another network.
        ModelError: the network holds something that cannot be stored without its code.
    """
    check_fit(network, policy, tuple(data.classes))
    files = _network_files(network) | _policy_files(policy) | dict(more or {})
    write_folder(Path(folder), "bundle", files, {"data": _format_json(data), "about": dict(about or {})})


def load(
    folder: str | Path,
    device: str = "cpu",
    *,
    memory: float = 2.0,
    compiled: bool = False,
    at_once: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> DynamicCNN:
    """Read a bundle. No code in it is run, and neither gymnasium nor Stable-Baselines3 is needed.

    Args:
        folder: to read.
        device: where the network is to run, such as cpu or cuda.
        memory: room for prepared slices, in parameters of the dense network; see `rlprune.slices.Slices`.
        compiled: let `torch.compile` make them faster; the first batches then take a while.
        at_once: images of a batch that run together; see `rlprune.runtime.DynamicCNN`.
        dtype: what the network computes in: float32, bfloat16 or float16; likewise.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or no bundle.
        RLPruneError: `memory`, `at_once` or `dtype` is out of range.
    """
    files, manifest = read_folder(Path(folder), ("bundle",))
    data = _format(manifest)
    dynamic = DynamicCNN(
        *(_network(files), _policy(files), data.mean, data.std, data.classes, device),
        memory=memory,
        compiled=compiled,
        at_once=at_once,
        dtype=dtype,
    )
    dynamic.about = manifest["about"]
    return dynamic


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _network_files(network: ElasticCNN) -> dict[str, bytes]:
    return {"network.json": dump(describe(network)), "network.safetensors": _pack(network.state_dict())}


def _policy_files(policy: Policy) -> dict[str, bytes]:
    return {"policy.json": dump(policy.to_json()), "policy.safetensors": _pack(policy.tensors())}


def _network(files: Mapping[str, bytes]) -> ElasticCNN:
    with malformed("network"):
        network = rebuild(json.loads(files["network.json"]))
        network.load_state_dict(load_tensors(files["network.safetensors"]))
    return network


def _policy(files: Mapping[str, bytes]) -> Policy:
    with malformed("policy"):
        return Policy.from_json(json.loads(files["policy.json"]), load_tensors(files["policy.safetensors"]))


def _format_json(data: DataFormat | ImageSet) -> dict[str, Any]:
    return {"mean": data.mean, "std": data.std, "classes": data.classes}


def _format(manifest: Mapping[str, Any]) -> DataFormat:
    with malformed("manifest"):
        return DataFormat(*(tuple(manifest["data"][key]) for key in ("mean", "std", "classes")))


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    return save_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
