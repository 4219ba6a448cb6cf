"""Progress: what a training logs, and bars where tqdm is installed; serving does without.

Bars of steps that are part of something larger are not shown: they move the one bar of the whole, a `WholeBar`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

_T = TypeVar("_T")

Log = Callable[[int, dict[str, float]], None]
"""Receives the number of images seen and figures: the means over an epoch."""


def progress_bar(items: Iterable[_T], *, desc: str, unit: str, hidden: bool = False) -> Iterable[_T]:
    """Iterate over items behind a progress bar, which disappears at the end.

    Args:
        items: an iterable with a length.
        desc: text at the start of the bar.
        unit: name of one item.
        hidden: show none.
    """
    if _whole is not None:
        return _moving(items, _whole)
    bar: Any = _tqdm()
    return items if bar is None or hidden else bar(items, desc=desc, unit=unit, leave=False)


def counting_bar(total: int, *, desc: str, unit: str, initial: int = 0, hidden: bool = False) -> Any:
    """A progress bar that is told how far a training is, as tqdm's are: `update`, `set_postfix`, `close`.

    Args:
        total: how many units there are.
        desc: text at the start of the bar.
        unit: name of one.
        initial: how many are done already.
        hidden: show none.
    """
    if _whole is not None:
        return _Part(total, initial, _whole)
    return _tqdm()(total=total, initial=initial, desc=desc, unit=unit, disable=hidden)


class WholeBar:
    """One bar for several steps, with the step's name and the time that is left; nothing where there is no terminal.

    Args:
        seconds: that each step will take, about, by its name, in their order.
        quiet: show nothing in any case.
    """

    def __init__(self, seconds: Mapping[str, float], *, quiet: bool = False) -> None:
        self._seconds = dict(seconds)
        self._done: set[str] = set()
        self._step = ""
        self._begun = time.monotonic()
        self._share: float | None = None
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            bar_format = "{desc} {bar} {percentage:3.0f} %{postfix}"
            shape = {"ncols": _columns(), "nrows": 24}  # else tqdm shows nothing where a terminal has no size
            self._bar = _tqdm()(total=1.0, bar_format=bar_format, leave=False, file=sys.stderr, **shape)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do a step; bars that open meanwhile move this one."""
        global _whole
        outer = _whole
        _whole = self
        self._step = name
        self._begun = time.monotonic()
        self._share = None
        self.show()
        try:
            yield
        finally:
            _whole = outer
        self._done.add(name)

    def expect(self, name: str, seconds: float) -> None:
        """Say anew how long a step will take that has not begun."""
        self._seconds[name] = seconds

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def tell(self, share: float) -> None:
        """Say how far the step is, in [0, 1]."""
        self._share = share
        self.show()

    def show(self) -> None:
        """Draw the bar as it is now."""
        if self._bar is None:
            return
        total = sum(self._seconds.values()) or 1.0
        done = sum(seconds for name, seconds in self._seconds.items() if name in self._done)
        expected = 0.0 if self._step in self._done else self._seconds.get(self._step, 0.0)
        elapsed = time.monotonic() - self._begun
        gone = expected * self._share if self._share is not None else min(elapsed, 0.95 * expected)
        self._bar.n = min(1.0, (done + gone) / total)
        self._bar.set_description_str(self._step, refresh=False)
        self._bar.set_postfix_str(f"{_in_words(total - done - gone)} left", refresh=False)
        self._bar.refresh()


_whole: WholeBar | None = None
"""The bar that those of steps move."""


class _Part:
    """Stands in for a bar of tqdm whose step is part of something larger."""

    def __init__(self, total: int, initial: int, whole: WholeBar) -> None:
        self.total = max(total, 1)
        self.n = initial
        self._whole = whole

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Count some units."""
        self.n += n
        self._whole.tell(self.n / self.total)

    def set_postfix(self, *_: object, **__: object) -> None:
        """Figures are not shown."""

    def close(self) -> None:
        """The whole bar stays."""


def _moving(items: Iterable[_T], whole: WholeBar) -> Iterator[_T]:
    for item in items:
        whole.show()
        yield item


def _in_words(seconds: float) -> str:
    return f"{max(seconds, 0):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _columns() -> int | None:
    """Width of the bar where the terminal does not say its own; else None, and tqdm asks it."""
    try:
        return None if os.get_terminal_size(sys.stderr.fileno()).columns else 80
    except (OSError, ValueError):
        return 80


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm
