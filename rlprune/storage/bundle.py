"""Bundles: network and policy in one folder, read without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rlprune.data.image_set import InputFormat
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.policies.policy import Policy, check_fit
from rlprune.storage.data_format import format_to_json, read_format
from rlprune.storage.folders import read_folder, write_folder
from rlprune.storage.networks import build_network, network_files
from rlprune.storage.policies import build_policy, policy_files


def save_bundle(
    folder: str | Path,
    network: ElasticCNN,
    policy: Policy,
    data: InputFormat,
    metadata: Mapping[str, Any] | None = None,
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Write network and policy together for `load`; the folder appears, or is replaced, as a whole.

    Args:
        folder: the folder to write.
        network: the network.
        policy: the policy, with its codebook.
        data: normalisation and class names, or an image set that has them.
        metadata: notes to store, which must fit into JSON.
        more: content of further files by name, such as an ONNX file of `rlprune.deployment.onnx_export.to_onnx`.

    Raises:
        BundleError: the policy was trained for another network, or the folder holds something else.
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
        folder: the bundle.
        device: where the network runs, such as cpu or cuda.
        memory: room for prepared slices, in multiples of the dense network's parameters; see
            `rlprune.deployment.slices.Slices`.
        compiled: speed the slices up with `torch.compile`; the first batches then take a while.
        max_batch: how many images run together; see `rlprune.deployment.dynamic_cnn.DynamicCNN`.
        dtype: number format the network computes in: float32, bfloat16 or float16.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or no bundle.
        RLPruneError: `memory`, `max_batch` or `dtype` is out of range.
    """
    files, manifest = read_folder(Path(folder), ("bundle",))
    dynamic = DynamicCNN.for_images(
        build_network(files),
        build_policy(files),
        read_format(manifest),
        device,
        memory=memory,
        compiled=compiled,
        max_batch=max_batch,
        dtype=dtype,
    )
    dynamic.metadata = manifest["about"]
    return dynamic
