"""Folders that are written whole or not at all, with checksums that show whether they were altered since."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from rlprune.errors import BundleError, OutOfMemoryError, RLPruneError
from rlprune.storage.tensors import MOST_BYTES, MalformedError, TensorFile, altered, sha256_of
from rlprune.utils.files import before_of, read_regular, scratch, writing
from rlprune.utils.hardware import memory_for
from rlprune.utils.imports import require
from rlprune.utils.locks import hold

FORMAT = 2
"""The latest of the folders that are written. Every version reads its own format and all earlier ones."""
MOST_JSON = 16 * 2**20
"""How many bytes a manifest, or another file of JSON, may have."""
_MOST_SAID = 500
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
    return read_folder(folder, tuple(FILES)).kind


@contextmanager
def malformed(what: str, but: type[Exception] = BundleError) -> Iterator[None]:
    """Turn errors from reading malformed content, which checksums cannot detect, into one short error of ours.

    Args:
        what: name of the content in the message.
        but: errors that stay as they are, if they are short.

    Raises:
        BundleError: the block raised anything at all, but OutOfMemoryError, which says nothing of the content.
    """
    try:
        with memory_for(f"reading the stored {what}", "end other programs, or load it on a machine with more"):
            yield
    except (but, OutOfMemoryError) as error:
        if len(str(error)) <= _MOST_SAID and "\n" not in str(error):
            raise
        raise BundleError(_short(str(error))) from error
    except MalformedError as error:
        raise BundleError(_short(f"the stored {what} is malformed: {error}")) from error
    except Exception as error:  # content that means harm can make torch raise anything
        raise BundleError(_short(f"the stored {what} is malformed: {type(error).__name__}: {error}")) from error


def _short(text: str) -> str:
    """A text in one line of bounded length."""
    said = " ".join(text[: 4 * _MOST_SAID].split())
    return said if len(said) <= _MOST_SAID else said[: _MOST_SAID - 4] + " ..."


def schema() -> ModuleType:
    """The schema of all files, which is imported when a first file is read: what it needs takes a while."""
    return require("rlprune.storage.schema")


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
    """The earliest format that a folder can have: 2 where it has preprocessing or an observation, unknown to 0.1.0."""
    return 2 if "preprocessing" in more.get("data", {}) or "observation" in more else 1


def _write_whole(folder: Path, everything: Mapping[str, bytes]) -> None:
    """Write files into a folder that takes the place of what is there, or change nothing."""
    with hold(folder, patience=_PATIENCE), replaced(folder) as fresh:
        for name, content in everything.items():
            write_to_disk(fresh / name, content)


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of another one, if that is there, once the block ends.

    Args:
        folder: what is replaced; its caller holds it, or the folder around it.
    """
    before = before_of(folder)
    with scratch(folder) as fresh:
        fresh.mkdir()
        yield fresh
        if folder.exists():
            shutil.rmtree(before, ignore_errors=True)
            folder.rename(before)  # a kill between these two renames leaves only this folder, which readers know of
        fresh.rename(folder)
        shutil.rmtree(before, ignore_errors=True)


def write_to_disk(path: Path, content: bytes) -> None:
    """Write a file of a folder that is not in place yet, and wait until the disk has it."""
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


def bundle_in(folder: Path) -> Path:
    """The bundle in a folder: bundle/ in it, or deploy/bundle/ of what `rlprune optimize` wrote; else the folder."""
    if (folder / "manifest.json").exists():
        return folder
    inside = (folder / place for place in ("bundle", "deploy/bundle"))
    return next((place for place in inside if (place / "manifest.json").is_file()), folder)


def _checksum_line(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  manifest.json\n".encode()


def read_folder(folder: Path, kinds: tuple[str, ...]) -> StoredFolder:
    """Read the manifest of a folder of one of some kinds; everything else is read from what is returned.

    Where a bundle may be meant, it is found in the folders that have one, too: see `bundle_in`.

    Raises:
        BundleError: it is missing, altered, of another kind, or none that rlprune wrote.
    """
    folder = bundle_in(folder) if "bundle" in kinds else folder
    if not folder.exists() and before_of(folder).exists():
        folder = before_of(folder)
    packed = _read(folder / "manifest.json")
    if _read(folder / "manifest.sha256", 1000) != _checksum_line(packed):
        raise BundleError(f"{folder / 'manifest.json'} has been altered: its SHA-256 is not the one written with it")
    known = schema()
    with malformed("manifest"):
        manifest = json.loads(packed.decode())
        _check_format(folder, manifest["format"], manifest)
        known.check(known.Manifest, manifest, "manifest")
        kind = manifest["kind"]
        if kind not in kinds:
            made = kind in ("network", "policy") and "bundle" in kinds
            cure = "; `rlprune export --network FOLDER --policy FOLDER` makes a bundle of both" if made else ""
            found, needed = reprlib.repr(kind)[1:-1], " or ".join(kinds)
            raise BundleError(f"{folder} holds a {found}; a {needed} is needed{cure}")
    return StoredFolder(folder, manifest)


class StoredFolder:
    """A folder whose manifest has been read and checked, and nothing else.

    Args:
        path: the folder.
        manifest: its manifest.

    Attributes:
        kind: of its content, one of `FILES`.
        notes: what was noted when it was written: data, which nothing follows.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.kind: str = manifest["kind"]
        self.notes: dict[str, Any] = manifest["about"]
        self._checksums: dict[str, str] = manifest["sha256"]
        self._compared: set[str] = set()

    def json(self, name: str) -> Any:
        """What a JSON file of it holds.

        Raises:
            BundleError: it cannot be read, or has been altered.
            ValueError: it is no JSON.
        """
        content = _read(self.path / name)
        if hashlib.sha256(content).hexdigest() != self._checksums.get(name):
            raise altered(self.path / name)
        self._compared.add(name)
        return json.loads(content.decode())

    def header(self, name: str) -> TensorFile:
        """A file of tensors of which only the header has been read.

        Raises:
            BundleError: it cannot be read.
            SafetensorError: its header is damaged.
        """
        with _reading(self.path / name):
            return TensorFile(self.path / name)

    def tensors(self, file: TensorFile) -> dict[str, Tensor]:
        """The tensors of a file of it, once it is known that they are needed.

        Raises:
            BundleError: it cannot be read, has been altered, or holds numbers that are not finite.
        """
        name = file.path.name
        with _reading(file.path):
            tensors = file.read(self._checksums.get(name, ""))
        self._compared.add(name)
        return tensors

    def check_rest(self) -> None:
        """Compare the checksums of all files that the manifest lists and that have not been read.

        Raises:
            BundleError: one cannot be read, or has been altered; or they are more than can be compared soon.
        """
        rest = [name for name in dict.fromkeys((*FILES[self.kind], *self._checksums)) if name not in self._compared]
        n_bytes = sum(os.stat(self.path / name).st_size for name in rest if (self.path / name).is_file())
        if n_bytes > MOST_BYTES:
            raise BundleError(f"{self.path} lists files of {n_bytes:,} bytes; at most {MOST_BYTES:,} are compared")
        for name in rest:
            with _reading(self.path / name):
                if sha256_of(self.path / name) != self._checksums.get(name):
                    raise altered(self.path / name)
            self._compared.add(name)

    @contextmanager
    def building(self, what: str) -> Iterator[None]:
        """Turn whatever goes wrong while something is built from its files into one short error of ours.

        A file that has been altered is the reason before all others.

        Args:
            what: name of the content in the message.

        Raises:
            BundleError: the block raised anything at all.
        """
        try:
            with malformed(what):
                yield
        except BundleError:
            self.check_rest()
            raise


def _check_format(folder: Path, found: Any, manifest: Mapping[str, Any]) -> None:
    """Read every format there was until now, and say which version reads a later one."""
    if type(found) is not int or found < 1:
        raise BundleError(
            f"{folder} has format {reprlib.repr(found)}, which is unknown; formats are whole numbers, and this rlprune "
            f"reads 1 to {FORMAT}: write the folder again"
        )
    if found > FORMAT:
        maker = _maker(manifest)
        raise BundleError(
            f"{folder} has format {reprlib.repr(found)}, written by rlprune {maker}; this is rlprune "
            f"{version('rlprune')}, which reads format {FORMAT} and earlier: install rlprune {maker} or later"
        )


def _maker(manifest: Mapping[str, Any]) -> str:
    """The version of rlprune that wrote a manifest, as far as it says so."""
    versions = manifest.get("versions")
    said = versions.get("rlprune") if isinstance(versions, dict) else None
    return said[:30] if isinstance(said, str) else "a later version"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except RLPruneError:
        raise
    except OSError as error:
        reason = error.strerror if path.parent.exists() else f"there is no folder {path.parent}"
        raise BundleError(f"{path} cannot be read ({reason}); is {path.parent} a folder that rlprune wrote?") from error


def _read(path: Path, most: int = MOST_JSON) -> bytes:
    with _reading(path):
        return read_regular(path, most)
