"""Docstrings are Google's sections around a little Markdown; Sphinx reads reStructuredText. This translates."""

from __future__ import annotations

import re
from typing import Any

import faces

_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_RULE = re.compile(r"^\|(?:\s*-+\s*\|)+$")


def to_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Translate the lines of a docstring in place: tables, headings, and names between backticks."""
    found: list[str] = []
    rows: list[str] = []
    for line in [*lines, ""]:
        stripped = line.strip()
        if stripped.startswith("|") and stripped.endswith("|"):
            rows.append(stripped)
            continue
        if rows:
            found += ["", *_table(rows), ""]
            rows = []
        found.append(f"**{stripped.lstrip('# ')}**\n" if stripped.startswith("## ") else _codes(line))
    lines[:] = [each for line in found for each in line.split("\n")]


def _codes(text: str) -> str:
    """Names as references to where the reference has them, all else between backticks as it is."""
    return _CODE.sub(_code, text)


def _code(match: re.Match[str]) -> str:
    content = match[1]
    known = faces.HOMES.get(content)
    before, after = match.string[: match.start()], match.string[match.end() :]
    left = "\\ " if before and (before[-1].isalnum() or before[-1] in "…") else ""
    right = "\\ " if after and (after[0].isalnum() or after[0] == "_") else ""
    return f"{left}:py:obj:`{content.rpartition('.')[2]} <{known}>`{right}" if known else f"{left}``{content}``{right}"


def _table(rows: list[str]) -> list[str]:
    """A Markdown table as a list-table."""
    cells = [[cell.strip() for cell in row[1:-1].split("|")] for row in rows if not _RULE.match(row)]
    width = max(map(len, cells))
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in cells:
        for column, cell in enumerate(row + [""] * (width - len(row))):
            lines.append(f"   {'* -' if column == 0 else '  -'} {_codes(cell)}".rstrip())
    return [*lines, ""]
