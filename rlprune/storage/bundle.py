"""Bundles: network and policy in one folder, here or on the Hugging Face hub, read without running code."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from rlprune.data.image_set import InputFormat
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.prediction import predicted
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import BundleError, HubError, RLPruneError
from rlprune.models import hub
from rlprune.policies.loop import run_policy
from rlprune.policies.one_image import SingleImagePolicy
from rlprune.policies.passes import PassResult
from rlprune.policies.policy import Policy, check_fit
from rlprune.storage.data_format import check_data, format_to_json, read_format
from rlprune.storage.folders import FILES, StoredFolder, bundle_in, malformed, read_folder, write_folder
from rlprune.storage.networks import build_network, network_files
from rlprune.storage.policies import build_policy, observation_entry, policy_files
from rlprune.storage.tensors import MalformedError
from rlprune.storage.trial import SECONDS, check_alone, check_result, try_image
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
    entries = {"data": format_to_json(data), "about": dict(metadata or {})} | observation_entry(policy)
    write_folder(Path(folder), "bundle", files, entries)


def load(
    folder: str | Path,
    device: str = "cpu",
    *,
    memory: float = 2.0,
    compiled: bool = False,
    max_batch: int | None = None,
    dtype: torch.dtype = torch.float32,
    max_macs: float | None = None,
    observation: type | str | None = None,
) -> DynamicCNN:
    """Read a bundle. No code in it is run, and neither gymnasium nor Stable-Baselines3 is needed.

    What it says is checked before memory is taken for it, and one image goes through every profile before it is
    returned: what loads runs.

    Args:
        folder: the bundle, or a folder that has it in it as ``bundle``, or what `rlprune optimize` wrote; or, where
            there is no such folder, ``org/name`` or ``org/name@revision`` on the Hugging Face hub, of which only the
            files that the manifest lists are read. What begins with ``runs/`` is a folder.
        device: where the network runs, such as cpu or cuda.
        memory: room for prepared slices, in multiples of the dense network's parameters; see
            `rlprune.deployment.slices.Slices`.
        compiled: speed the slices up with `torch.compile`; the first batches then take a while.
        max_batch: how many images run together; see `rlprune.deployment.dynamic_cnn.DynamicCNN`.
        dtype: number format the network computes in: float32, bfloat16 or float16.
        max_macs: the most multiply-adds that one image may take in one pass, each value that a node gives counted as
            32 of them; a thousandth of it is the most values at a time. Give more for larger networks that you trust.
            If None, what the environment variable `RLPRUNE_MAX_MACS` says, or 100 G.
        observation: the class of the policy's observation, or ``"module:Class"``, where that is somebody's own: its
            code is run, so give one that you trust. No file can name it for you.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or no bundle; or its network takes more than
            `max_macs`, or does not run, in `dtype` or at all; or its policy's observation is somebody's own, and its
            class is not given.
        HubError: the hub cannot be reached, or has no such bundle; a BundleError, too.
        OutOfMemoryError: the device has not enough memory for it.
        RLPruneError: `memory`, `max_batch`, `dtype` or `max_macs` is out of range.
    """
    folder = located(folder)
    stored = read_folder(folder, ("bundle",))
    policy = build_policy(stored, observation)
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
            _try(dynamic, compiled=compiled)
    except BundleError as error:
        if dtype == torch.float32:
            raise
        raise BundleError(f"{folder} does not run in {dtype}, perhaps in float32 ({error})") from error
    dynamic.metadata = stored.notes
    return _at_stored_penalty(dynamic)


def _at_stored_penalty(dynamic: DynamicCNN) -> DynamicCNN:
    """A network whose policy serves a range of penalties, at the one that its notes say, if they say one.

    Raises:
        BundleError: it is none of that range.
    """
    stored = dynamic.metadata.get("penalty")
    if dynamic.penalty is None or isinstance(stored, bool) or not isinstance(stored, int | float):
        return dynamic
    with malformed("notes"):
        return dynamic.at(penalty=stored)


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

    Of a bundle its own files are uploaded, of a folder that has one in it as ``bundle`` the other files beside it, too,
    and of what `rlprune optimize` wrote its deploy/.
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
    folder = bundle_in(source)
    source = folder.parent if folder != source else source  # deploy/, of the folder of an optimisation
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
        text = own.read_text(encoding="utf-8") if own.is_file() else _card(repo_id, stored.manifest)
        card.write_text(hub.tagged(text), encoding="utf-8")


def _card(repo_id: str, manifest: Mapping[str, Any]) -> str:
    """A short model card, for a bundle that has none."""
    classes = read_format(manifest).classes
    observation = f', observation="{manifest["observation"]}"' if "observation" in manifest else ""
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

model = rlprune.load("{repo_id}"{observation})
print(model.predict("picture.jpg").classes)
```

The files hold safetensors and JSON; loading them runs no code.
"""


def located(name: str | Path) -> Path:
    """The folder of a bundle: the one that is named, or the one in it that `bundle_in` finds; else one from the hub.

    Raises:
        HubError: there is no such folder, the name looks like one of the hub's, and that does not give it.
        BundleError: what the hub gives is no bundle.
    """
    folder, of_hub = Path(name), hub.HubName.of(name)
    if of_hub is None or folder.exists() or before_of(folder).exists():
        return bundle_in(folder)
    first, exactly = hub.download(of_hub, (*_MANIFESTS, *(f"bundle/{each}" for each in _MANIFESTS)))
    found = bundle_in(first)
    if not (found / "manifest.json").is_file():
        raise HubError(f"{of_hub} is on the Hugging Face hub, and no bundle of rlprune: it has no manifest.json")
    prefix = "" if found == first else f"{found.name}/"
    stored = read_folder(found, ("bundle",))
    downloaded, _ = hub.download(exactly, [f"{prefix}{each}" for each in _names(stored)])
    return downloaded / prefix


def _names(stored: StoredFolder) -> list[str]:
    """All files of a bundle: the manifest, its checksum, and what it lists."""
    return [*dict.fromkeys((*_MANIFESTS, *FILES["bundle"], *stored.manifest["sha256"]))]


@torch.inference_mode()
def _try(dynamic: DynamicCNN, *, compiled: bool) -> None:
    """Send an image through every profile of a bundle, as far as time allows, and through its policy.

    Args:
        dynamic: the bundle.
        compiled: whether its slices are to be compiled, which would take a while now: the network itself runs instead.

    Raises:
        MalformedError: a profile gives something else than finite logits.
        Exception: whatever the network raises.
    """
    stem = dynamic.elastic.stem if compiled else dynamic.slices.stem
    dtype = torch.float32 if compiled else dynamic.dtype
    images = try_image(dynamic.image_shape, dynamic, 2)
    images = images.to(dynamic.device, dtype, memory_format=torch.channels_last)
    features = stem.forward(images[:1])  # not called, which would print where it fails
    among = stem.forward(images)
    check_alone(features, among)
    deadline = time.perf_counter() + SECONDS
    *cheaper, dearest = dynamic.prices.bodies.macs.argsort().tolist()
    logits = {dearest: _check(_body(dynamic, dearest, features, compiled), dynamic, 1)}
    check_alone(logits[dearest], _check(_body(dynamic, dearest, among, compiled), dynamic, 2))
    for profile in cheaper:
        if time.perf_counter() > deadline:
            break
        logits[profile] = _check(_body(dynamic, profile, features, compiled), dynamic, 1)
    _try_policy(dynamic, features.float(), logits)


def _body(dynamic: DynamicCNN, profile: int, features: Tensor, compiled: bool) -> Tensor:
    if compiled:
        return dynamic.elastic.run_body(features, dynamic.codebook[profile])
    result: Tensor = dynamic.slices.at_hand(profile).forward(features.contiguous(memory_format=torch.channels_last))
    return result


def _check(logits: Tensor, dynamic: DynamicCNN, n_images: int) -> Tensor:
    return check_result(logits, dynamic.elastic.n_classes, n_images, exact=dynamic.dtype == torch.float32)


def _try_policy(dynamic: DynamicCNN, features: Tensor, logits: dict[int, Tensor]) -> None:
    """Let the policy decide on one image alone and on two; the passes give logits that are known already."""
    some = next(iter(logits.values()))

    def run(bucket: Tensor, profile: int) -> Tensor:
        return logits.get(profile, some).expand(len(bucket), -1)

    observed = dynamic.policy.observer.features(features)
    alone = SingleImagePolicy(dynamic.policy, dynamic.prices, dynamic.first).run(observed, run)
    both = run_policy(dynamic.policy, observed.expand(2, -1), dynamic.prices, run, dynamic.first)
    for passes in (alone, both):
        _check_passes(dynamic, passes)


def _check_passes(dynamic: DynamicCNN, passes: PassResult) -> None:
    ratios = torch.tensor(dynamic.elastic.keep_ratios)[dynamic.codebook]
    prediction = predicted(passes.logits, passes.profiles, ratios, dynamic.prices)
    if not bool(prediction.probabilities.isfinite().all()):
        raise MalformedError("the policy gives predictions that are not finite")
