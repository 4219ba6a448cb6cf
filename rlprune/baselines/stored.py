"""Folders that hold a rival: a gated network, or an ordinary one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load as load_tensors
from torch import Tensor, fx, nn

from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.data.image_set import InputFormat
from rlprune.graph import serialization
from rlprune.storage.data_format import DataFormat, format_to_json, read_format
from rlprune.storage.folders import dump, malformed, pack, read_folder, write_folder
from rlprune.storage.structure import describe, rebuild


@dataclass(frozen=True)
class SavedGated:
    """A gated network with its data format and notes."""

    network: GatedCNN
    data: DataFormat
    metadata: dict[str, Any]


@dataclass(frozen=True)
class SavedPlain:
    """An ordinary network, normalised images -> logits, with its data format and notes."""

    network: nn.Sequential
    image_shape: tuple[int, ...]
    data: DataFormat
    metadata: dict[str, Any]


def save_gated(
    folder: str | Path, network: GatedCNN, data: InputFormat, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a gated network and the elastic network it was made from; the folder appears or is replaced as a whole.

    Args:
        folder: the folder to write.
        network: the gated network.
        data: normalisation and class names, or an image set that has them.
        metadata: notes to store, which must fit into JSON.

    Raises:
        BundleError: the folder holds something else.
        ModelError: the network holds something that cannot be stored without its code.
    """
    gates = {"kind": network.kind, "reduction": network.reduction, "threshold": network.threshold}
    description = {"elastic": describe(network.source[0]), "gates": gates}
    parts = {"gated": network, "elastic": network.source[0]}
    tensors: dict[str, Tensor] = {}
    for part, module in parts.items():
        tensors |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    files = {"network.json": dump(description), "network.safetensors": pack(tensors)}
    write_folder(Path(folder), "gated", files, {"data": format_to_json(data), "about": dict(metadata or {})})


def load_gated(folder: str | Path) -> SavedGated:
    """Read a gated network.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind.
    """
    files, manifest = read_folder(Path(folder), ("gated",))
    with malformed("network"):
        description = json.loads(files["network.json"])
        tensors = load_tensors(files["network.safetensors"])
        elastic = rebuild(description["elastic"])
        elastic.load_state_dict(_under("elastic.", tensors))
        network = GatedCNN(elastic, **description["gates"])
        network.load_state_dict(_under("gated.", tensors))
    return SavedGated(network.eval(), read_format(manifest), manifest["about"])


def save_plain(
    folder: str | Path,
    network: nn.Sequential,
    image_shape: Sequence[int],
    data: InputFormat,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write an ordinary network; the folder appears or is replaced as a whole.

    Args:
        folder: the folder to write.
        network: a sequence of graphs such as `ElasticCNN.slice` returns.
        image_shape: (C, H, W) of its images.
        data: normalisation and class names, or an image set that has them.
        metadata: notes to store, which must fit into JSON.

    Raises:
        BundleError: the folder holds something else.
        ModelError: the network holds something that cannot be stored without its code.
    """
    parts = {name: serialization.to_json(cast(fx.GraphModule, part)) for name, part in network.named_children()}
    description = {"image_shape": list(image_shape), "parts": parts}
    files = {"network.json": dump(description), "network.safetensors": pack(network.state_dict())}
    write_folder(Path(folder), "plain", files, {"data": format_to_json(data), "about": dict(metadata or {})})


def load_plain(folder: str | Path) -> SavedPlain:
    """Read an ordinary network.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind.
    """
    files, manifest = read_folder(Path(folder), ("plain",))
    network = nn.Sequential()
    with malformed("network"):
        description = json.loads(files["network.json"])
        image_shape = tuple(int(size) for size in description["image_shape"])
        for name, part in description["parts"].items():
            network.add_module(name, serialization.from_json(part))
        network.load_state_dict(load_tensors(files["network.safetensors"]))
    return SavedPlain(network.eval(), image_shape, read_format(manifest), manifest["about"])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
