"""Folders that are written whole or not at all, with checksums that show whether they were altered since."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save as save_tensors
from torch import Tensor

from rlprune.errors import MALFORMED, BundleError
from rlprune.utils.files import before_of, check_target_file, scratch, writing
from rlprune.utils.locks import hold

FORMAT = 2
"""The latest of the folders that are written. Every version reads its own format and all earlier ones."""
_PATIENCE = 60.0
"""Seconds to wait for another process that writes the same folder."""
FILES: dict[str, tuple[str, ...]] = {
    "network": ("network.json", "network.safetensors"),
    "policy": ("policy.json", "policy.safetensors"),
    "bundle": ("network.json", "network.safetensors", "policy.json", "policy.safetensors"),
    "gated": ("network.json", "network.safetensors"),
    "plain": ("network.json", "network.safetensors"),
}


def kind_of(folder: Path) -> str:
    """The kind of a folder's content: `network`, `policy`, `bundle`, `gated` or `plain`.

    Raises:
        BundleError: the folder is missing, altered, or none that rlprune wrote.
    """
    return str(read_folder(folder, tuple(FILES))[1]["kind"])


@contextmanager
def malformed(what: str) -> Iterator[None]:
    """Turn errors from reading malformed content, which checksums cannot detect, into one of ours.

    Args:
        what: name of the content in the message.

    Raises:
        BundleError: the block raised what malformed content can cause.
    """
    try:
        yield
    except BundleError:
        raise
    except (*MALFORMED, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"the stored {what} is malformed: {type(error).__name__}: {reason}") from error


def dump(value: Any) -> bytes:
    """A value as the content of a JSON file."""
    return (json.dumps(value, indent=1) + "\n").encode()


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name as the content of a safetensors file."""
    return save_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})


def write_folder(folder: Path, kind: str, files: Mapping[str, bytes], more: Mapping[str, Any]) -> None:
    """Write a folder with a manifest, as a whole; a folder of the same kind is replaced.

    Args:
        folder: the folder to write.
        kind: of its content, one of `FILES`.
        files: content of each file, by name.
        more: further entries of the manifest.

    Raises:
        BundleError: the folder holds something else.
        WriteError: the disk is full, or the folder may not be written.
    """
    manifest = {
        "format": _format_of(more),
        "kind": kind,
        "versions": {name: version(name) for name in ("rlprune", "torch", "safetensors")},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        **more,
    }
    packed = dump(manifest)
    everything = {**files, "manifest.json": packed, "manifest.sha256": _checksum_line(packed)}
    check_target(folder, kind)
    with writing(folder):
        _write_whole(folder, everything)


def _format_of(more: Mapping[str, Any]) -> int:
    """The earliest format that a folder can have: 2 where pictures are prepared in a way that 0.1.0 does not know."""
    return 2 if "preprocessing" in more.get("data", {}) else 1


def _write_whole(folder: Path, everything: Mapping[str, bytes]) -> None:
    """Write files into a folder that takes the place of what is there, or change nothing."""
    before = before_of(folder)
    with hold(folder, patience=_PATIENCE), scratch(folder) as fresh:
        fresh.mkdir()
        for name, content in everything.items():
            _write_to_disk(fresh / name, content)
        if folder.exists():
            shutil.rmtree(before, ignore_errors=True)
            folder.rename(before)  # a kill between these two renames leaves only this folder, which readers know of
        fresh.rename(folder)
        shutil.rmtree(before, ignore_errors=True)


def _write_to_disk(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def check_target(folder: Path, kind: str) -> None:
    """Make sure that a folder may be written: it does not exist, or holds the same kind of thing.

    Raises:
        BundleError: it holds something else.
    """
    if not folder.exists():
        return
    try:
        found = json.loads((folder / "manifest.json").read_text())["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} exists and is no folder that rlprune wrote; name another one, or remove it"
        raise BundleError(message) from error
    if found != kind:
        raise BundleError(f"{folder} holds a {found}, which a {kind} would replace; name another one, or remove it")


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


def _checksum_line(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  manifest.json\n".encode()


def read_folder(folder: Path, kinds: tuple[str, ...]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Read a folder of one of some kinds: its files' content by name, and its manifest.

    Raises:
        BundleError: it is missing, altered, of another kind, or none that rlprune wrote.
    """
    if not folder.exists() and before_of(folder).exists():
        folder = before_of(folder)
    packed = _read(folder / "manifest.json")
    if _read(folder / "manifest.sha256") != _checksum_line(packed):
        raise BundleError(f"{folder / 'manifest.json'} has been altered: its SHA-256 is not the one written with it")
    with malformed("manifest"):
        manifest = json.loads(packed)
        found, kind, checksums, _ = (manifest[key] for key in ("format", "kind", "sha256", "about"))
        _check_format(folder, found, manifest)
        if kind not in kinds:
            raise BundleError(f"{folder} holds a {kind}; a {' or '.join(kinds)} is needed")
        files = {name: _read(folder / name) for name in FILES[kind]}
        for name, content in files.items():
            if hashlib.sha256(content).hexdigest() != checksums.get(name):
                raise BundleError(
                    f"{folder / name} has been altered: its SHA-256 is not the manifest's; copy the folder again"
                )
    return files, manifest


def _check_format(folder: Path, found: Any, manifest: Mapping[str, Any]) -> None:
    """Read every format there was until now, and say which version reads a later one."""
    if type(found) is not int or found < 1:
        raise BundleError(
            f"{folder} has format {found!r}, which is unknown; formats are whole numbers, and this rlprune reads 1 to "
            f"{FORMAT}: write the folder again"
        )
    if found > FORMAT:
        maker = manifest.get("versions", {}).get("rlprune", "a later version")
        raise BundleError(
            f"{folder} has format {found}, written by rlprune {maker}; this is rlprune {version('rlprune')}, which "
            f"reads format {FORMAT} and earlier: install rlprune {maker} or later"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}); is {path.parent} a folder that rlprune wrote?"
        ) from error
