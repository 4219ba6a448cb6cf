"""What something was made with: written down before it is made, and compared before it is resumed.

A run folder, a checkpoint or a step of a recipe is only continued under the settings, network and images that it was
begun with. These are the few functions that everything resumable shares.
"""

from __future__ import annotations

import hashlib
import json
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rlprune.errors import RLPruneError
from rlprune.storage.folders import check_target
from rlprune.utils.files import check_target_file, read_text, write_json

HOW = frozenset({"device", "bf16", "channels_last", "fp16", "compile", "workers"})
"""Settings of where and how something is computed, not of what: it may be gone on with under others."""
_LEFT = re.compile(r"\.lock|\..*([0-9a-f]{32}|\.before$)")
"""Hidden files that a killed process leaves: locks, and what was not written to its end."""
Same = Callable[[str, str], bool]
"""Whether two texts among settings say the same."""


def plain(settings: Any) -> Any:
    """Settings as JSON holds them: dataclasses become objects, tuples lists, paths and other objects strings."""
    return json.loads(json.dumps(settings, default=lambda each: asdict(each) if is_dataclass(each) else str(each)))  # type: ignore[arg-type]


def fingerprint(*parts: Tensor | bytes) -> str:
    """SHA-256 over the content of tensors and bytes, in their order: tells networks, images and codebooks apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.detach().cpu().contiguous().numpy().tobytes() if isinstance(part, Tensor) else part)
    return digest.hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any], same: Same = operator.eq) -> list[str]:
    """The settings that differ from those that something was made with, each with both values.

    Settings inside of others are named by their path, such as `training.epochs`; those of `HOW` make no difference.

    Args:
        before: what it was made with.
        now: the settings of now.
        same: whether two texts say the same, such as two spellings of a path.
    """
    found = []
    for key, value in now.items():
        if key in HOW:
            continue
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            either = dict.fromkeys(old) | value  # a setting that only one of them has differs, too
            found += [f"{key}.{difference}" for difference in differences(old, either, same)]
        elif not _equal(old, value, same):
            found.append(f"{key}: {old!r}, now {value!r}")
    return found


def _equal(old: Any, value: Any, same: Same) -> bool:
    """Whether two settings are equal, the texts among them by what they say; lists are compared entry by entry."""
    if isinstance(old, list) and isinstance(value, list):
        return len(old) == len(value) and all(_equal(*pair, same) for pair in zip(old, value, strict=True))
    return bool(old == value) or (isinstance(old, str) and isinstance(value, str) and same(old, value))


def check_unchanged(
    what: str, before: Mapping[str, Any], now: Mapping[str, Any], cure: str, same: Same = operator.eq
) -> None:
    """Make sure that something is resumed under the settings that it was made with.

    Args:
        what: what is resumed, as a message begins: a checkpoint's or a folder's path.
        before: the settings that it was made with.
        now: those of now, as `plain` gives them; others that `before` has are not compared.
        cure: what the user can do.
        same: as in `differences`.

    Raises:
        RLPruneError: they differ; the message names each that does, with both values.
    """
    changed = differences(before, now, same)
    if changed:
        raise RLPruneError(f"{what} was made under other settings ({'; '.join(changed)}); {cure}")


def read_note(path: Path) -> dict[str, Any]:
    """An object that a JSON file holds; an empty one if it is not there, or holds something else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note_to_compare(path: Path, kind: type[Any], cure: str) -> Any:
    """What a JSON file holds that something is compared with before it is resumed.

    Args:
        path: the file.
        kind: what it has to hold, dict or list.
        cure: what the user can do where it does not.

    Raises:
        RLPruneError: it does not.
    """
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise RLPruneError(f"{path} is damaged ({type(error).__name__}); {cure}") from error
    if not isinstance(found, kind):
        raise RLPruneError(f"{path} is damaged (it holds a {type(found).__name__}); {cure}")
    return found


def check_ours(folder: Path, ours: bool, may: Collection[str] = ()) -> None:
    """Make sure that a folder may be filled: it is new, empty, or was begun by the same.

    Args:
        folder: what is to be filled.
        ours: whether it has the notes or the checkpoint of what was begun.
        may: names of what may be there without them.

    Raises:
        RLPruneError: it holds something else.
    """
    if not ours and (strange := others_in(folder, may)):
        raise RLPruneError(f"{folder} holds other things, such as {strange[0]}; name a new or an empty folder")


def check_targets(out: Path, folders: Mapping[str, str], files: Iterable[str]) -> None:
    """Make sure, before long work, that what is made in a folder may be written, whatever is there already.

    Args:
        out: the folder.
        folders: kinds of the folders in it, by name.
        files: names of the files in it.

    Raises:
        BundleError: something else is in the place of a folder.
        WriteError: something else is in the place of a file, or it may not be written.
    """
    for name, kind in folders.items():
        check_target(out / name, kind)
    for name in files:
        check_target_file(out / name)


def others_in(folder: Path, may: Collection[str]) -> list[str]:
    """What is in a folder beside some names and what a killed process leaves, sorted; nothing if it is no folder."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(name for name in names if name not in may and not _LEFT.match(name))


@contextmanager
def noted(
    path: Path,
    now: Mapping[str, Any],
    *,
    what: str,
    cure: str,
    made: Path | None = None,
    values_only: bool = False,
    same: Same = operator.eq,
) -> Iterator[None]:
    """Write down what is made in the block, before it begins; refuse to resume what was made otherwise.

    Args:
        path: JSON file of the note. A new one is removed again if the block raises `RLPruneError`: such settings cannot
            be, so there is nothing to go back to.
        now: the settings, as `plain` gives them.
        what: what is made, as a message begins: a step's name or a folder's path.
        cure: what the user can do where they differ.
        made: a file or folder that the block makes; once it is there, the note stays in any case.
        values_only: the note is a list of the values, in the order of `now`, without their names.
        same: as in `differences`.

    Raises:
        RLPruneError: the note is there and says otherwise.
    """
    new = not path.exists()
    if new:
        write_json(path, list(now.values()) if values_only else now)
    else:
        before = note_to_compare(path, list if values_only else dict, cure)
        check_unchanged(what, dict(zip(now, before, strict=False)) if values_only else before, now, cure, same)
    try:
        yield
    except RLPruneError:
        if new and (made is None or not made.exists()):
            path.unlink(missing_ok=True)
        raise
