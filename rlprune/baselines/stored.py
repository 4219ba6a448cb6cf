"""Folders that hold a rival: a gated network, or an ordinary one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.data.image_set import InputFormat
from rlprune.elastic.module import ElasticModule
from rlprune.graph import serialization
from rlprune.profiles.cost import Cost
from rlprune.storage.data_format import DataFormat, check_data, format_to_json, read_format
from rlprune.storage.folders import dump, pack, read_folder, write_folder
from rlprune.storage.networks import description_of
from rlprune.storage.propagation import Meter, check_batches, limit_of, propagate
from rlprune.storage.structure import assemble, build_graph, check_claims, check_logits, describe
from rlprune.storage.tensors import TensorFile
from rlprune.storage.trial import check_alone, check_result, try_image, try_network


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


def load_gated(folder: str | Path, *, max_macs: float | None = None) -> SavedGated:
    """Read a gated network.

    Args:
        folder: the folder.
        max_macs: the most multiply-adds that one image may take; see `rlprune.storage.bundle.load`.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind; or its network takes too much, or
            does not run.
    """
    stored = read_folder(Path(folder), ("gated",))
    data = read_format(stored.manifest)
    limit = limit_of(max_macs)
    with stored.building("network"):
        description, file = description_of(stored, "Gated")
        elastic = assemble(description["elastic"], file, limit, "elastic.")
        network = GatedCNN(elastic, **description["gates"]).eval()
        parts = {"gated.": network, "elastic.": elastic}
        file.check({prefix + name: each for prefix, part in parts.items() for name, each in part.state_dict().items()})
        tensors = stored.tensors(file)
        for prefix, part in parts.items():
            part.load_state_dict(_under(prefix, tensors), assign=True)
        check_data(data, elastic.image_shape, elastic.n_classes)
        try_network(elastic, data)
        with torch.no_grad():
            decided = network.decide(try_image(elastic.image_shape, data, 2))
        check_result(decided.logits, elastic.n_classes, 2)
    stored.check_rest()
    return SavedGated(network, data, stored.notes)


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


def save_sliced(
    folder: str | Path,
    network: nn.Sequential,
    elastic: ElasticModule,
    profile: Tensor,
    data: InputFormat,
    metadata: Mapping[str, Any],
) -> None:
    """Write a slice that was trained on, with what `rlprune evaluate` wants to know of where it is from.

    Args:
        folder: the folder to write.
        network: the slice, which is put on the CPU.
        elastic: what it was cut from.
        profile: how, int64 (G,).
        data: as for `save_plain`, like the errors.
        metadata: further notes.
    """
    dense = Cost(elastic).dense
    notes = {"how": "searched", "dense": {"params": int(dense.params), "macs": int(dense.macs)}}
    about = {**metadata, **notes, "profile": profile.tolist()}
    save_plain(folder, network.cpu(), elastic.image_shape, data, about)


def load_plain(folder: str | Path, *, max_macs: float | None = None) -> SavedPlain:
    """Read an ordinary network.

    Args:
        folder: the folder.
        max_macs: the most multiply-adds that one image may take; see `rlprune.storage.bundle.load`.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind; or its network takes too much, or
            does not run.
    """
    stored = read_folder(Path(folder), ("plain",))
    data = read_format(stored.manifest)
    limit = limit_of(max_macs)
    with stored.building("network"):
        description, file = description_of(stored, "Plain")
        network = _plain(description, file, limit)
        file.check(network.state_dict())
        network.load_state_dict(stored.tensors(file), assign=True)
        image_shape = tuple(description["image_shape"])
        check_data(data, image_shape, len(data.classes))
        images = try_image(image_shape, data, 2)
        check_alone(_run(network, images[:1], len(data.classes)), _run(network, images, len(data.classes)))
    stored.check_rest()
    return SavedPlain(network, image_shape, data, stored.notes)


@torch.no_grad()
def _run(network: nn.Sequential, values: Tensor, n_classes: int) -> Tensor:
    """The logits of images, once it is seen that they are some."""
    n_images = len(values)
    for part in network.eval().children():
        values = part.forward(values)  # not called, which would print where it fails
    return check_result(values, n_classes, n_images)


def _plain(description: Any, file: TensorFile, max_macs: float) -> nn.Sequential:
    """An ordinary network on the meta device, once it is known to be bounded."""
    network = nn.Sequential()
    for name, part in description["parts"].items():
        network.add_module(name, build_graph(part, f"parts.{name}", file, name))
    check_claims(network, file, max_macs)
    values = torch.empty(1, *description["image_shape"], device="meta")
    meter = Meter(max_macs)
    for name, part in network.named_children():
        graph, given = cast(fx.GraphModule, part), values
        values = propagate(graph, given, meter, f"parts.{name}")
        check_batches(graph, given, f"parts.{name}")
    check_logits(values)
    return network


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
