"""What is stored with a network of the images that trained it; to be shown and compared, never followed."""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlprune.data.image_set import Splits
from rlprune.data.splitting import SPLIT_RULE
from rlprune.errors import BundleError
from rlprune.intake.identity import sample_of
from rlprune.intake.options import DataOptions, without_unset
from rlprune.storage.folders import MOST_JSON, malformed, schema
from rlprune.utils.files import read_regular


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


def source_notes(options: DataOptions) -> dict[str, Any]:
    """What is stored of where images came from: as earlier versions do, if nothing is given that they did not know."""
    return without_unset(dataclasses.asdict(options))


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
