"""Tables of networks that can be pruned, as `tests/zoo.py` found, and of what a stored network may consist of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlprune.graph import operators

FOUND = Path(__file__).parent.parent / "runs" / "reference" / "zoo.json"
CHECKS = {"exact": ("full", "slices", "cost"), "bundle": ("bundle",), "ONNX": ("onnx",), "trains": ("trained",)}
"""Columns of the table, and which checks of the zoo have to hold for them."""


def networks() -> str:
    """All networks that were tried, with how far each can be pruned, or why not; and how they were tried."""
    found = json.loads(FOUND.read_text())
    parts = []
    for library in ("torchvision", "timm"):
        rows = [row for row in found["rows"] if row["network"].startswith(f"{library}:")]
        right = sum(map(_is_right, rows))
        parts += [f"## {library}: {right} of {len(rows)}", table(rows)]
        refused = [row for row in rows if not _is_right(row)]
        if refused:
            parts += ["Refused, or not right:", "\n".join(f"- `{row['network']}`: {row['says']}" for row in refused)]
    versions = f"timm {found['timm']}, torchvision {found['torchvision']}, torch {found['torch']}"
    parts.append(
        f"Made by `python tests/zoo.py`. {found['hardware']}, {found['threads']} threads; {versions}; {found['date']}."
    )
    return "\n\n".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each network."""
    head = ("network", "groups", "that can be dropped", "MACs down to, %", *CHECKS, "`from_model`, s")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [f"`{row['network']}`"]
        if "groups" in row:
            cells += [str(row["groups"]), str(row["skippable"]), f"{row['down to %']:.1f}"]
            cells += ["yes" if all(row.get(name) is True for name in names) else "no" for names in CHECKS.values()]
        else:
            cells += ["refused", *[""] * (2 + len(CHECKS))]
        lines.append(f"| {' | '.join([*cells, str(row.get('s', ''))])} |")
    return "\n".join(lines)


def storable() -> str:
    """The layers, functions and methods that a stored network may consist of."""
    functions = (name.replace("_operator.", "operator.") for name in operators.FUNCTIONS)
    kinds = {
        "layers of `torch.nn`": operators.LAYERS,
        "functions": functions,
        "methods of tensors": operators.METHODS,
        "attributes of tensors": operators.ATTRIBUTES,
    }
    rows = [f"| {kind} | {' '.join(f'`{name}`' for name in sorted(names))} |" for kind, names in kinds.items()]
    return "\n".join(["| what | which |", "|---|---|", *rows])


def _is_right(row: dict[str, Any]) -> bool:
    return all(row.get(name) is True for names in CHECKS.values() for name in names)
