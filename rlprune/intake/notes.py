"""What is stored with a network of the images that trained it; to be shown and compared, never followed."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlprune.data.image_set import Splits
from rlprune.data.splitting import SPLIT_RULE
from rlprune.errors import BundleError
from rlprune.intake.identity import same_source, sample_of
from rlprune.storage.folders import MOST_JSON, malformed, schema
from rlprune.utils.files import read_regular
from rlprune.utils.notes import say

_HOW_DATA_IS_READ = ("image_size", "image_column", "label_column", "split_seed", "test_split")
"""What the notes on a network may say of the data that the user names: nothing that is imported or opened."""


def network_notes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The notes on a network, out of its own or those of a bundle, which keeps them next to others.

    They are to be shown and compared; nothing that they name is imported, opened or downloaded.

    Raises:
        BundleError: what the program reads of them is of another kind than it writes.
    """
    notes = metadata.get("network", metadata)
    if not isinstance(notes, dict):
        raise BundleError(f"the stored notes are malformed: network is {reprlib.repr(notes)}; an object is needed")
    notes = {**notes, "split": metadata.get("split") or {}}
    schema().check(schema().NetworkNotes, notes, "note on the network")
    return notes


def how_read(notes: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Options of data that a network was trained with, for the data that the user names; none for other data.

    Args:
        notes: on the network, from `network_notes`.
        data: as the user calls it.
    """
    source = notes.get("source") or {}
    same_data = same_source(source.get("data"), data)
    return {name: source[name] for name in _HOW_DATA_IS_READ if name in source} if same_data else {}


def split_notes(splits: Splits, rule: int = SPLIT_RULE) -> dict[str, Any]:
    """What is stored with a network of the split that it was trained on, for `load_fitting`."""
    return {"rule": rule, "sample": sample_of(splits)}


def split_rule_of(folder: Path) -> int:
    """By which rule the images of a run folder are split: the one of the network in it, if there is one yet."""
    manifest = folder / "adapted" / "manifest.json"
    if not manifest.exists():
        return SPLIT_RULE
    with malformed("manifest"):
        about = json.loads(read_regular(manifest, MOST_JSON))["about"]
        return int(network_notes(about)["split"].get("rule", 1))


def say_refitted(metadata: Mapping[str, Any]) -> None:
    """Say it where a bundle's network has seen the images by which its rivals are chosen."""
    if metadata.get("refitted") is True:
        say(
            "the network was trained on the policy's images too, after its policy was learnt (refit): static profiles "
            "and the margins of cascades are chosen by images that it has seen, and may be better than they seem here"
        )


def say_kept(metadata: Mapping[str, Any]) -> None:
    """Say it where a bundle's policy is the cascade that it began as."""
    if is_cascade(metadata.get("policy")):
        say(
            "the policy decides as the tuned cascade that it began as, which was kept: what was learnt was not surely "
            "ahead of it on validation images"
        )


def is_cascade(policy: Any) -> bool:
    """Whether the notes on a policy say that it is the cascade which it began as, not what was learnt."""
    choice = policy.get("choice") if isinstance(policy, dict) else None
    return isinstance(choice, dict) and choice.get("kept") == "cascade"
