"""Folders that hold an elastic network, and the files in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprune.data.image_set import InputFormat
from rlprune.elastic.cnn import ElasticCNN
from rlprune.storage.data_format import DataFormat, check_data, format_to_json, read_format
from rlprune.storage.folders import StoredFolder, dump, pack, read_folder, schema, write_folder
from rlprune.storage.propagation import limit_of
from rlprune.storage.structure import assemble, describe
from rlprune.storage.tensors import TensorFile
from rlprune.storage.trial import try_network


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


def load_network(folder: str | Path, *, max_macs: float | None = None) -> SavedNetwork:
    """Read an elastic network, from its own folder or out of a bundle.

    Args:
        folder: the folder.
        max_macs: the most multiply-adds that one image may take; see `rlprune.storage.bundle.load`.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind; or its network takes too much, or
            does not run.
    """
    stored = read_folder(Path(folder), ("network", "bundle"))
    network, data = build_network(stored, max_macs), read_format(stored.manifest)
    with stored.building("network"):
        check_data(data, network.image_shape, network.n_classes)
        try_network(network, data)
    stored.check_rest()
    return SavedNetwork(network, data, stored.notes)


def network_files(network: ElasticCNN) -> dict[str, bytes]:
    """Content of the files that hold a network, by name."""
    return {"network.json": dump(describe(network)), "network.safetensors": pack(network.state_dict())}


def description_of(stored: StoredFolder, kind: str) -> tuple[Any, TensorFile]:
    """What a folder says of its network, and the header of the file of its weights.

    Args:
        stored: the folder.
        kind: which entry of `rlprune.storage.schema` it must keep to.

    Raises:
        BundleError: a file cannot be read, or has been altered, or the description is malformed.
    """
    description = stored.json("network.json")
    schema().check(getattr(schema(), kind), description, "network")
    return description, stored.header("network.safetensors")


def build_network(stored: StoredFolder, max_macs: float | None) -> ElasticCNN:
    """Build the network that a folder holds; nothing has run through it yet.

    Args:
        stored: the folder.
        max_macs: the most multiply-adds that one image may take.

    Raises:
        BundleError: the content is malformed, or takes too much.
        SettingsError: `max_macs` is no number of 1 or more.
    """
    limit = limit_of(max_macs)
    with stored.building("network"):
        description, file = description_of(stored, "Network")
        network = assemble(description, file, limit)
        network.load_state_dict(stored.tensors(file), assign=True)
    return network
