"""How far something is: logs, and progress bars, where what shows them is installed; serving needs none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")

Log = Callable[[int, dict[str, float]], None]
"""Receives the number of images seen and figures: the means over an epoch."""


def progress_bar(items: Iterable[_T], *, desc: str, unit: str) -> Iterable[_T]:
    """Go through items and show how far it is; the line goes away at the end.

    Args:
        items: with a length.
        desc: what the line begins with.
        unit: what an item is.
    """
    bar: Any = _tqdm()
    return items if bar is None else bar(items, desc=desc, unit=unit, leave=False)


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm
