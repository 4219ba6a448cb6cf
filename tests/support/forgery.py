"""Stored folders that say something else than what was written, with checksums that are right again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Change = Callable[[Any], Any]


def sign(folder: Path) -> None:
    """Make the checksums right again, as somebody who means harm would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["sha256"]:
        if (folder / name).is_file():
            manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    packed = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(packed)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(packed).hexdigest()}  manifest.json\n")


def change_json(folder: Path, name: str, change: Change) -> None:
    """Change what a JSON file says, in place or to what the change returns."""
    value = json.loads((folder / name).read_text())
    changed = change(value)
    (folder / name).write_text(json.dumps(value if changed is None else changed))
    sign(folder)


def change_tensors(folder: Path, name: str, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the tensors of a file, in place."""
    tensors = load_file(folder / name)
    with torch.no_grad():
        change(tensors)
    save_file(tensors, folder / name)
    sign(folder)


def at(path: str, value: Any) -> Change:
    """Put a value at a path such as `body.nodes.3.args`; names with dots in them are written with slashes."""

    def change(stored: Any) -> None:
        *parents, last = (part.replace("/", ".") for part in path.split("."))
        for part in parents:
            stored = stored[int(part) if isinstance(stored, list) else part]
        stored[int(last) if isinstance(stored, list) else last] = value

    return change


def extra(*nodes: tuple[str, str, list[Any]], part: str = "body") -> Change:
    """Put nodes that nothing reads behind a graph's placeholder, which they may call x, and each other n0, n1, ..."""

    def change(stored: Any) -> None:
        first = stored[part]["nodes"][0]["name"]

        def named(arg: Any) -> Any:
            return {"node": first if arg == "x" else arg} if isinstance(arg, str) and arg[:1] in ("x", "n") else arg

        for i, (op, target, args) in enumerate(nodes):
            given = {"tuple": [named(arg) for arg in args]}
            new = {"name": f"n{i}", "op": op, "target": target, "args": given, "kwargs": {}}
            stored[part]["nodes"].insert(i + 1, new)

    return change
