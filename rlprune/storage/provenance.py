"""What something was made with: written down before it is made, and compared before it is resumed.

A run folder, a checkpoint or a step of a recipe is only gone on with under the settings, network and images that it was
begun with. These are the few functions that everything resumable shares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rlprune.errors import RLPruneError
from rlprune.utils.files import write_json


def plain(settings: Any) -> Any:
    """Settings as JSON holds them: dataclasses become objects, tuples lists, paths and other objects strings."""
    return json.loads(json.dumps(settings, default=lambda each: asdict(each) if is_dataclass(each) else str(each)))  # type: ignore[arg-type]


def fingerprint(*parts: Tensor | bytes) -> str:
    """SHA-256 over the content of tensors and bytes, in their order: tells networks, images and codebooks apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.detach().cpu().contiguous().numpy().tobytes() if isinstance(part, Tensor) else part)
    return digest.hexdigest()


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ from those that something was made with."""
    return [key for key, value in now.items() if before.get(key) != value]


def check_unchanged(what: str, before: Mapping[str, Any], now: Mapping[str, Any], cure: str) -> None:
    """Make sure that something is resumed under the settings that it was made with.

    Args:
        what: what is resumed, as a message begins: a checkpoint's or a folder's path.
        before: the settings that it was made with.
        now: those of now, as `plain` gives them.
        cure: what the user can do.

    Raises:
        RLPruneError: they differ; the message names each that does, with both values.
    """
    changed = [f"{key}: {before.get(key)!r}, now {now[key]!r}" for key in changed_keys(before, now)]
    if changed:
        raise RLPruneError(f"{what} was made under other settings ({'; '.join(changed)}); {cure}")


@contextmanager
def noted(path: Path, now: Mapping[str, Any], cure: str) -> Iterator[None]:
    """Write down what is made in the block, before it begins; refuse to resume what was made otherwise.

    Args:
        path: JSON file of the note; it is removed again if the block says that such settings cannot be.
        now: the settings, as `plain` gives them.
        cure: what the user can do where they differ.

    Raises:
        RLPruneError: the note is there and says otherwise.
    """
    new = not path.exists()
    if new:
        write_json(path, now)
    else:
        check_unchanged(f"what {path} describes", json.loads(path.read_text()), now, cure)
    try:
        yield
    except RLPruneError:
        if new:
            path.unlink(missing_ok=True)  # such settings cannot be: there is nothing to go back to
        raise
