"""Verbs in several processes, which torchrun started: which verbs share their work, and what each process says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rlprune.errors import ClusterError
from rlprune.training.parallel.group import joined, launched


@contextmanager
def shared(verb: Any, name: str, may: tuple[type, ...]) -> Iterator[None]:
    """Be one of the processes that carry out a verb; but for the first they print nothing.

    Args:
        verb: the verb.
        name: of it.
        may: the verbs that share their work.

    Raises:
        ClusterError: the verb is for one process, and there are several; or they do not find each other.
    """
    if launched() > 1 and not isinstance(verb, may):
        error = ClusterError(
            f"rlprune {name} runs in one process, and torchrun started {launched()}; start it alone ("
            f"{', '.join(sorted(kind.__name__.removesuffix('Recipe').lower() for kind in may))} share their work)"
        )
        error.agreed = True  # type: ignore[attr-defined]
        raise error
    with joined() as group:
        if group.leads:
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield


def says(error: BaseException, *, begun: bool) -> bool:
    """Whether this process is to say what went wrong: others say it where all of them found the same.

    Args:
        error: what it was.
        begun: whether the verb had begun; what was typed is the same for all.
    """
    return os.environ.get("RANK", "0") == "0" or (begun and not getattr(error, "agreed", False))


def launcher() -> list[str]:
    """The words that start rlprune as it was started."""
    if launched() == 1:
        return ["rlprune"]
    return ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "N"), "-m", "rlprune"]
