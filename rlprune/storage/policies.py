"""Folders that hold a policy, and the files in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlprune.elastic.levels import MAX_PROFILES
from rlprune.policies.named import class_of
from rlprune.policies.policy import Policy
from rlprune.storage.folders import StoredFolder, dump, pack, read_folder, schema, write_folder
from rlprune.storage.tensors import MalformedError, TensorFile

_MOST_NUMBERS = 2**27
"""How many numbers a policy may hold: a thousand times as many as a large one; an empty file can claim more."""


@dataclass(frozen=True)
class SavedPolicy:
    """A policy with its notes."""

    policy: Policy
    metadata: dict[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """The notes, as 0.1.0 called them."""
        return self.metadata


def save_policy(folder: str | Path, policy: Policy, metadata: Mapping[str, Any]) -> None:
    """Write a policy; the folder appears or is replaced as a whole.

    Args:
        folder: the folder to write.
        policy: the policy.
        metadata: notes to store, which must fit into JSON.

    Raises:
        BundleError: the folder holds something else.
    """
    more = {"about": dict(metadata or {})} | observation_entry(policy)
    write_folder(Path(folder), "policy", policy_files(policy), more)


def load_policy(folder: str | Path, observation: type | str | None = None) -> SavedPolicy:
    """Read a policy, from its own folder or out of a bundle.

    Args:
        folder: the folder.
        observation: the class of the policy's observation, or ``"module:Class"``, where that is somebody's own.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind; or the policy's observation is
            somebody's own, and its class is not given.
    """
    stored = read_folder(Path(folder), ("policy", "bundle"))
    policy = build_policy(stored, observation)
    stored.check_rest()
    return SavedPolicy(policy, stored.notes)


def load_profiles(folder: str | Path) -> Tensor:
    """Read the profiles that a stored policy chooses from, int64 (K, G), cheapest first, whatever it observes.

    Args:
        folder: of a policy or a bundle.

    Raises:
        BundleError: the folder is missing, incomplete, altered, or of another kind.
    """
    stored = read_folder(Path(folder), ("policy", "bundle"))
    with stored.building("policy"):
        return _read(stored)[1]["codebook"]


def policy_files(policy: Policy) -> dict[str, bytes]:
    """Content of the files that hold a policy, by name."""
    return {"policy.json": dump(policy.to_json()), "policy.safetensors": pack(policy.tensors())}


def observation_entry(policy: Policy) -> dict[str, Any]:
    """What a manifest says of a policy: the class of its observation, if that is not the default one."""
    own = policy.observer.own
    return {} if own is None else {"observation": own.name}


def build_policy(stored: StoredFolder, observation: type | str | None = None) -> Policy:
    """Build the policy that a folder holds.

    Args:
        stored: the folder.
        observation: as for `load_policy`.

    Raises:
        BundleError: the content is malformed; or as for `load_policy`.
    """
    if isinstance(observation, str):  # before files are read: a name that is wrong is the caller's mistake
        observation = class_of("observation", observation)
    with stored.building("policy"):
        description, tensors = _read(stored)
        policy = Policy.from_json(description, tensors, observation)
        _check_ranges(policy)
    return policy


def _read(stored: StoredFolder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A policy's settings and its tensors, checked."""
    description = stored.json("policy.json")
    schema().check(schema().Policy, description, "policy")
    file = stored.header("policy.safetensors")
    if file.n_elements > _MOST_NUMBERS:
        raise MalformedError(f"{file.path.name} has {file.n_elements:,} numbers; {_MOST_NUMBERS:,} are the most")
    file.check(_needed(description, file))
    return description, stored.tensors(file)


def _needed(description: Mapping[str, Any], file: TensorFile) -> dict[str, Tensor]:
    """What a policy needs, on the meta device: of its settings, or, where they leave a size open, of the file.

    Raises:
        MalformedError: a size that they leave open is out of range.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (n_in, n_out) in enumerate(pairwise(description["sizes"])):
        shapes |= {f"network.{2 * index}.weight": (n_out, n_in), f"network.{2 * index}.bias": (n_out,)}
    own = description.get("observation") is not None
    if not own:
        n_features = _open_size(file, "observer.mean", 0, 2**24)
        shapes |= {"observer.mean": (n_features,), "observer.std": (n_features,)}
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    n_profiles = _open_size(file, "codebook", 1, MAX_PROFILES)
    profiles = (n_profiles, len(description["min_level"]))
    tensors["codebook"] = torch.empty(profiles, dtype=torch.int64, device="meta")
    if description.get("penalties"):
        n_budgets = _open_size(file, "budgets", 2, 10_000)
        tensors["budgets"] = torch.empty(n_budgets, 2, dtype=torch.float64, device="meta")
    return tensors | (_measured(file) if own else {})


def _measured(file: TensorFile) -> dict[str, Tensor]:
    """What an own observation has measured, as the file claims: its class knows the names, and none the sizes."""
    claims = {name: claim for name, claim in file.claims.items() if name.startswith("observer.")}
    return {name: torch.empty(claim.shape, dtype=claim.dtype, device="meta") for name, claim in claims.items()}


def _open_size(file: TensorFile, name: str, least: int, most: int) -> int:
    """The length of a tensor that only the file knows."""
    claim = file.claims.get(name)
    if claim is None or not claim.shape or not least <= claim.shape[0] <= most:
        found = None if claim is None else claim.shape
        raise MalformedError(f"{file.path.name}: {name} has shape {found}; {least} to {most} rows are needed")
    return claim.shape[0]


def _check_ranges(policy: Policy) -> None:
    """Make sure that features can be standardised, and that profiles are of levels that there are."""
    if not bool((policy.observer.std > 0).all()):
        raise MalformedError("policy.safetensors: 'observer.std' has numbers of 0 or less; above 0 is needed")
    levels = policy.actions.keep_levels
    if not levels.clamp(policy.codebook).equal(policy.codebook):
        raise MalformedError(f"policy.safetensors: 'codebook' has levels that are not in 0 to {levels.n_levels - 1}")
    if int(levels.min_level.max()) >= levels.n_levels:
        raise MalformedError(f"min_level is {int(levels.min_level.max())}; below {levels.n_levels} is needed")
