"""Lines that tell a user what was decided for them."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Print one line to stderr, where it disturbs no output that another program reads."""
    print(f"rlprune: {line}", file=sys.stderr, flush=True)


_said: set[str] = set()


def say_once(line: str) -> None:
    """`say` it, unless this process has said it before."""
    if line not in _said:
        _said.add(line)
        say(line)
