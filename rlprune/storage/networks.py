"""Folders that hold an elastic network, and the files in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors

from rlprune.data.image_set import InputFormat
from rlprune.elastic.cnn import ElasticCNN
from rlprune.storage.data_format import DataFormat, format_to_json, read_format
from rlprune.storage.folders import dump, malformed, pack, read_folder, write_folder
from rlprune.storage.structure import describe, rebuild


@dataclass(frozen=True)
class SavedNetwork:
    """An elastic network with its data format and notes."""

    network: ElasticCNN
    data: DataFormat
    metadata: dict[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """The notes, as 0.1.0 called them."""
        return self.metadata


def save_network(
    folder: str | Path, network: ElasticCNN, data: InputFormat, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write an elastic network; the folder appears or is replaced as a whole.

    Args:
        folder: the folder to write.
        network: the network.
        data: normalisation and class names, or an image set that has them.
        metadata: notes to store, which must fit into JSON.

    Raises:
        BundleError: the folder holds something else.
        ModelError: the network holds something that cannot be stored without its code.
    """
    more = {"data": format_to_json(data), "about": dict(metadata or {})}
    write_folder(Path(folder), "network", network_files(network), more)


def load_network(folder: str | Path) -> SavedNetwork:
    """Read an elastic network, from its own folder or out of a bundle.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind.
    """
    files, manifest = read_folder(Path(folder), ("network", "bundle"))
    return SavedNetwork(build_network(files), read_format(manifest), manifest["about"])


def network_files(network: ElasticCNN) -> dict[str, bytes]:
    """Content of the files that hold a network, by name."""
    return {"network.json": dump(describe(network)), "network.safetensors": pack(network.state_dict())}


def build_network(files: Mapping[str, bytes]) -> ElasticCNN:
    """Build the network that files hold, given their content by name.

    Raises:
        BundleError: the content is malformed.
    """
    with malformed("network"):
        network = rebuild(json.loads(files["network.json"]))
        network.load_state_dict(load_tensors(files["network.safetensors"]))
    return network
