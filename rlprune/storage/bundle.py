"""Bundles: network and policy in one folder, here or on the Hugging Face hub, read without running code."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from rlprune.data.image_set import InputFormat
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import BundleError, HubError, RLPruneError
from rlprune.models import hub
from rlprune.policies.policy import Policy, check_fit
from rlprune.storage.data_format import check_data, format_to_json, read_format
from rlprune.storage.folders import FILES, StoredFolder, malformed, read_folder, write_folder
from rlprune.storage.networks import build_network, network_files
from rlprune.storage.policies import build_policy, policy_files
from rlprune.storage.trial import try_dynamic
from rlprune.utils.files import before_of

_MANIFESTS = ("manifest.json", "manifest.sha256")


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
        more: content of further files by name, such as an ONNX file of `rlprune.deployment.onnx.export.to_onnx`.

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
    max_macs: float | None = None,
) -> DynamicCNN:
    """Read a bundle. No code in it is run, and neither gymnasium nor Stable-Baselines3 is needed.

    What it says is checked before memory is taken for it, and one image goes through every profile before it is
    returned: what loads runs.

    Args:
        folder: the bundle, or a folder that has it in it as ``bundle``; or, where there is no such folder, ``org/name``
            or ``org/name@revision`` on the Hugging Face hub, of which only the files that the manifest lists are read.
        device: where the network runs, such as cpu or cuda.
        memory: room for prepared slices, in multiples of the dense network's parameters; see
            `rlprune.deployment.slices.Slices`.
        compiled: speed the slices up with `torch.compile`; the first batches then take a while.
        max_batch: how many images run together; see `rlprune.deployment.dynamic_cnn.DynamicCNN`.
        dtype: number format the network computes in: float32, bfloat16 or float16.
        max_macs: the most multiply-adds that one image may take in one pass, each value that a node gives counted as
            32 of them; a thousandth of it is the most values at a time. Give more for larger networks that you trust.
            If None, what the environment variable `RLPRUNE_MAX_MACS` says, or 100 G.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or no bundle; or its network takes more than
            `max_macs`, or does not run, in `dtype` or at all.
        HubError: the hub cannot be reached, or has no such bundle; a BundleError, too.
        OutOfMemoryError: the device has not enough memory for it.
        RLPruneError: `memory`, `max_batch`, `dtype` or `max_macs` is out of range.
    """
    folder = located(folder)
    stored = read_folder(folder, ("bundle",))
    policy = build_policy(stored)
    data = read_format(stored.manifest)
    network = build_network(stored, max_macs)
    with stored.building("bundle"):
        check_data(data, network.image_shape, network.n_classes)
        check_fit(network, policy, data.classes)
    stored.check_rest()
    how = {"memory": memory, "compiled": compiled, "max_batch": max_batch, "dtype": dtype}
    with malformed("network", but=RLPruneError):
        dynamic = DynamicCNN.for_images(network, policy, data, device, **how)
    try:
        with malformed("network"):
            try_dynamic(dynamic, compiled=compiled)
    except BundleError as error:
        if dtype == torch.float32:
            raise
        raise BundleError(f"{folder} does not run in {dtype}, perhaps in float32 ({error})") from error
    dynamic.metadata = stored.notes
    return dynamic


def save_dynamic(folder: str | Path, dynamic: DynamicCNN, metadata: Mapping[str, Any]) -> None:
    """Write a network that predicts, with its policy, for `load`.

    Args:
        folder: the folder to write.
        dynamic: the network.
        metadata: notes to store.

    Raises:
        BundleError: the folder holds something else.
    """
    save_bundle(folder, cast(ElasticCNN, dynamic.elastic), dynamic.source_policy, dynamic, metadata)


def push_to_hub(
    bundle: str | Path | DynamicCNN,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload a bundle of rlprune",
) -> str:
    """Upload a bundle to the Hugging Face hub, whence `load` reads it by its name.

    Of a bundle its own files are uploaded, of a folder that has one in it as ``bundle`` the other files beside it, too.
    A README.md that is there is the model card, and its metadata say that it is for rlprune; otherwise one is written.

    Args:
        bundle: the folder, or a network that predicts.
        repo_id: the repository, ``org/name``; it is made if it is not there.
        private: whether a new repository is private; None for what its owner's settings say.
        token: to be used in place of that of `hf auth login`.
        branch: where to; None for the main branch.
        create_pr: open a pull request.
        commit_message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or no bundle.
        HubError: the hub cannot be reached, or does not take it; a BundleError, too.
        MissingExtraError: the hub's client is not installed.
    """
    with tempfile.TemporaryDirectory() as work:
        if isinstance(bundle, DynamicCNN):
            source = Path(work) / "bundle"
            save_dynamic(source, bundle, bundle.metadata)
        else:
            source = Path(bundle)
        staged = Path(work) / "staged"
        _stage(source, staged, repo_id)
        return hub.upload(
            staged,
            repo_id,
            message=commit_message,
            private=private,
            token=token,
            revision=branch,
            pr=create_pr,
        )


def _stage(source: Path, staged: Path, repo_id: str) -> None:
    """Copy what is uploaded of a bundle, or of a folder that has one in it, into an empty folder, with a model card."""
    folder = _inside(source)
    stored = read_folder(folder, ("bundle",))
    stored.check_rest()
    to = staged if folder == source else staged / folder.name
    to.mkdir(parents=True)
    names = _names(stored)
    for name in names:
        shutil.copyfile(folder / name, to / name)
    if folder != source:
        for path in source.iterdir():
            if path.is_file() and not path.name.startswith("."):
                shutil.copyfile(path, staged / path.name)
    card, own = staged / "README.md", source / "README.md"
    if "README.md" not in names or folder != source:
        text = (
            own.read_text(encoding="utf-8") if own.is_file() else _card(repo_id, read_format(stored.manifest).classes)
        )
        card.write_text(hub.tagged(text), encoding="utf-8")


def _card(repo_id: str, classes: tuple[str, ...]) -> str:
    """A short model card, for a bundle that has none."""
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    return f"""---
library_name: rlprune
pipeline_tag: image-classification
tags: [rlprune, image-classification, pruning, dynamic-inference]
---
# {repo_id.rpartition("/")[2]}

An image classifier that runs each image through as much of its network as it needs. {len(classes)} classes: {shown}.

```python
import rlprune

model = rlprune.load("{repo_id}")
print(model.predict("picture.jpg").classes)
```

The files hold safetensors and JSON; loading them runs no code.
"""


def located(name: str | Path) -> Path:
    """The folder of a bundle: the one that is named, or the one in it called bundle; else one from the hub.

    Raises:
        HubError: there is no such folder, the name looks like one of the hub's, and that does not give it.
        BundleError: what the hub gives is no bundle.
    """
    folder, of_hub = Path(name), hub.HubName.of(name)
    if of_hub is None or folder.exists() or before_of(folder).exists():
        return _inside(folder)
    first, exactly = hub.download(of_hub, (*_MANIFESTS, *(f"bundle/{each}" for each in _MANIFESTS)))
    found = _inside(first)
    if not (found / "manifest.json").is_file():
        raise HubError(f"{of_hub} is on the Hugging Face hub, and no bundle of rlprune: it has no manifest.json")
    prefix = "" if found == first else f"{found.name}/"
    stored = read_folder(found, ("bundle",))
    downloaded, _ = hub.download(exactly, [f"{prefix}{each}" for each in _names(stored)])
    return downloaded / prefix


def _names(stored: StoredFolder) -> list[str]:
    """All files of a bundle: the manifest, its checksum, and what it lists."""
    return [*dict.fromkeys((*_MANIFESTS, *FILES["bundle"], *stored.manifest["sha256"]))]


def _inside(folder: Path) -> Path:
    """A bundle's folder, or the one in it called bundle."""
    inside = folder / "bundle"
    return inside if (inside / "manifest.json").is_file() and not (folder / "manifest.json").exists() else folder
