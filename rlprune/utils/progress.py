"""Progress: what a training logs, and bars where tqdm is installed; serving does without."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")

Log = Callable[[int, dict[str, float]], None]
"""Receives the number of images seen and figures: the means over an epoch."""


def progress_bar(items: Iterable[_T], *, desc: str, unit: str) -> Iterable[_T]:
    """Iterate over items behind a progress bar, which disappears at the end.

    Args:
        items: an iterable with a length.
        desc: text at the start of the bar.
        unit: name of one item.
    """
    bar: Any = _tqdm()
    return items if bar is None else bar(items, desc=desc, unit=unit, leave=False)


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm
