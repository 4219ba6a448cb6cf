"""Steps that alter the files of a seed: lists that JSON can hold, of a name, a file and arguments."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing import documents, protobuf

Files = dict[str, bytes]
Step = list[Any]


def altered(files: Files, steps: list[Step]) -> Files:
    """The files after some steps; one that does not apply any more, such as to an entry that is gone, is left out."""
    files = dict(files)
    for name, file, *arguments in steps:
        try:
            if name in _OF_JSON:
                value = copy.deepcopy(documents.read(file, files[file]))
                files[file] = documents.write(file, files[file], _OF_JSON[name](value, *arguments))
            elif name in _OF_BYTES:
                files[file] = _OF_BYTES[name](files, file, *arguments)
        except (LookupError, ValueError, TypeError, RecursionError, AttributeError, protobuf.DecodeError):
            continue
    return files


def sign(files: Files) -> Files:
    """Make the checksums right, as somebody who means harm would."""
    files = {name: _signed(content) if name.endswith(".onnx") else content for name, content in files.items()}
    try:
        manifest = json.loads(files["manifest.json"])
        told = manifest["sha256"]
        manifest["sha256"] = told | {name: _sha256(files[name]) for name in told if name in files}
        if manifest["sha256"] != told:
            files["manifest.json"] = json.dumps(manifest).encode()
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
        pass  # what is no manifest stays as it is
    if "manifest.json" in files:
        files["manifest.sha256"] = f"{_sha256(files['manifest.json'])}  manifest.json\n".encode()
    return files


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _signed(content: bytes) -> bytes:
    """An ONNX file with the right checksum, if it has one: it is made of the file with zeros in its place."""
    zeros = re.sub(rb"(rlprune\.sha256\x12\x40)[0-9a-f]{64}", rb"\g<1>" + b"0" * 64, content)
    right = _sha256(zeros).encode()
    return re.sub(rb"(rlprune\.sha256\x12\x40)0{64}", lambda found: found.group(1) + right, zeros)


def place(files: Files, steps: list[Step], folder: Path) -> None:
    """Write files, and put things in their place that are no files."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name, file, *arguments in steps:
        if name in OF_FOLDERS:
            _remove(folder / file)
            OF_FOLDERS[name](folder / file, *arguments)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _set(value: Any, path: documents.Path, new: Any) -> Any:
    documents.at(value, path[:-1])[path[-1]] = new
    return value


def _delete(value: Any, path: documents.Path) -> Any:
    del documents.at(value, path[:-1])[path[-1]]
    return value


def _rename(value: Any, path: documents.Path, name: str) -> Any:
    owner = documents.at(value, path[:-1])
    items = [(name if key == path[-1] else key, each) for key, each in owner.items()]
    owner.clear()
    owner.update(items)
    return value


def _insert(value: Any, path: documents.Path, index: int, new: Any) -> Any:
    documents.at(value, path).insert(index, new)
    return value


_OF_JSON: dict[str, Callable[..., Any]] = {
    "set": _set,
    "root": lambda value, new: new,
    "delete": _delete,
    "rename": _rename,
    "again": lambda value, path, new: _set(value, [*path[:-1], f"@again:{path[-1]}"], new),
    "insert": _insert,
    "copy": lambda value, path, source: _set(value, path, copy.deepcopy(documents.at(value, source))),
}


def _fill(files: Files, file: str, tensor: str, number: float) -> bytes:
    content = files[file]
    where = documents.data_of(content, tensor)
    if where.start < 0 or where.stop > len(content):
        raise ValueError("another step has changed where the tensor is")
    kind = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}[documents.read(file, content)[tensor]["dtype"]]
    with np.errstate(all="ignore"):
        filled = np.full((where.stop - where.start) // int(kind[-1]), float(number)).astype(kind).tobytes()
    return content[: where.start] + filled + content[where.stop :]


def _flip(files: Files, file: str, position: int, bit: int) -> bytes:
    content = bytearray(files[file])
    content[position] ^= 1 << bit
    return bytes(content)


_OF_BYTES: dict[str, Callable[..., bytes]] = {
    "fill": _fill,
    "flip": _flip,
    "put": lambda files, file, at, text: files[file][:at] + bytes.fromhex(text) + files[file][at:],
    "cut": lambda files, file, start, stop: files[file][:start] + files[file][stop:],
    "splice": lambda files, file, at, source, start, stop: (
        files[file][:at] + files[source][start:stop] + files[file][at:]
    ),
    "proto": lambda files, file, *change: protobuf.altered(files[file], *change),
}


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


OF_FOLDERS: dict[str, Callable[..., Any]] = {
    "missing": lambda path: None,
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "sparse": lambda path, size: (path.touch(), os.truncate(path, size)),
    "link": lambda path, target: path.symlink_to(target),
    "socket": _socket,
    "many": lambda path: [(path.parent / f"{n}").touch() for n in range(300)],
}
