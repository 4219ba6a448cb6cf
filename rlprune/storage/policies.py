"""Folders that hold a policy, and the files in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors

from rlprune.policies.policy import Policy
from rlprune.storage.folders import dump, malformed, pack, read_folder, write_folder


@dataclass(frozen=True)
class SavedPolicy:
    """A policy with its notes."""

    policy: Policy
    metadata: dict[str, Any]


def save_policy(folder: str | Path, policy: Policy, metadata: Mapping[str, Any]) -> None:
    """Write a policy; the folder appears or is replaced as a whole.

    Args:
        folder: the folder to write.
        policy: the policy.
        metadata: notes to store, which must fit into JSON.

    Raises:
        BundleError: the folder holds something else.
    """
    write_folder(Path(folder), "policy", policy_files(policy), {"about": dict(metadata or {})})


def load_policy(folder: str | Path) -> SavedPolicy:
    """Read a policy, from its own folder or out of a bundle.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind.
    """
    files, manifest = read_folder(Path(folder), ("policy", "bundle"))
    return SavedPolicy(build_policy(files), manifest["about"])


def policy_files(policy: Policy) -> dict[str, bytes]:
    """Content of the files that hold a policy, by name."""
    return {"policy.json": dump(policy.to_json()), "policy.safetensors": pack(policy.tensors())}


def build_policy(files: Mapping[str, bytes]) -> Policy:
    """Build the policy that files hold, given their content by name.

    Raises:
        BundleError: the content is malformed.
    """
    with malformed("policy"):
        return Policy.from_json(json.loads(files["policy.json"]), load_tensors(files["policy.safetensors"]))
