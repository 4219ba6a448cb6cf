"""Lines that tell a user what was decided for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_heard: list[list[str]] = []
"""Who listens, the innermost last."""


def say(line: str) -> None:
    """Print one line to stderr, where it disturbs no output that another program reads; or tell who listens.

    Of the processes that torchrun has started, the first alone does.
    """
    if _heard:
        _heard[-1].append(line)
    elif os.environ.get("RANK", "0") == "0":
        print(f"rlprune: {line}", file=sys.stderr, flush=True)


@contextmanager
def heard() -> Iterator[list[str]]:
    """Keep the lines that are said meanwhile, to be shown together; where the block raises, they are said after all."""
    lines: list[str] = []
    _heard.append(lines)
    try:
        yield lines
    except BaseException:
        _heard.remove(lines)
        for line in lines:
            say(line)
        raise
    _heard.remove(lines)


_said: set[str] = set()


def say_once(line: str) -> None:
    """`say` it, unless this process has said it before."""
    if line not in _said:
        _said.add(line)
        say(line)
