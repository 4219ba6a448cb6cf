"""Bundles: network and policy in one folder, read without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rlprune.data.image_set import ImageSet
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.policies.policy import Policy, check_fit
from rlprune.storage.data_format import DataFormat, format_to_json, read_format
from rlprune.storage.folders import read_folder, write_folder
from rlprune.storage.networks import build_network, network_files
from rlprune.storage.policies import build_policy, policy_files


def save_bundle(
    folder: Path,
    network: ElasticCNN,
    policy: Policy,
    data: DataFormat | ImageSet,
    metadata: Mapping[str, Any] | None = None,
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Write network and policy together, as `load` reads them; the folder appears or is replaced as a whole.

    Args:
        folder: to write.
        network: the network.
        policy: the policy, with its codebook.
        data: an image set of its kind, or just the format: normalisation and class names.
        metadata: notes to keep, as JSON can hold them.
        more: further files by name, such as what `rlprune.deployment.onnx_export.to_onnx` gives.

    Raises:
        BundleError: the policy was trained for another network.
        ModelError: the network holds something that cannot be stored without its code.
    """
    check_fit(network, policy, tuple(data.classes))
    files = network_files(network) | policy_files(policy) | dict(more or {})
    write_folder(Path(folder), "bundle", files, {"data": format_to_json(data), "about": dict(metadata or {})})


def load(
    folder: str | Path,
    device: str = "cpu",
    *,
    memory: float = 2.0,
    compiled: bool = False,
    max_batch: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> DynamicCNN:
    """Read a bundle. No code in it is run, and neither gymnasium nor Stable-Baselines3 is needed.

    Args:
        folder: to read.
        device: where the network is to run, such as cpu or cuda.
        memory: room for prepared slices, in parameters of the dense network; see `rlprune.deployment.slices.Slices`.
        compiled: let `torch.compile` make them faster; the first batches then take a while.
        max_batch: images of a batch that run together; see `rlprune.deployment.dynamic_cnn.DynamicCNN`.
        dtype: what the network computes in: float32, bfloat16 or float16; likewise.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or no bundle.
        RLPruneError: `memory`, `max_batch` or `dtype` is out of range.
    """
    files, manifest = read_folder(Path(folder), ("bundle",))
    data = read_format(manifest)
    dynamic = DynamicCNN(
        *(build_network(files), build_policy(files), data.mean, data.std, data.classes, device),
        memory=memory,
        compiled=compiled,
        max_batch=max_batch,
        dtype=dtype,
    )
    dynamic.metadata = manifest["about"]
    return dynamic
