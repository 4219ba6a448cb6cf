"""Processes that train together: forks of this one, which see what torchrun would tell them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlprune.training.parallel.group import joined

_LONGEST = 100.0
"""Seconds, after which processes that hang are killed."""


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Ranks:
    """Processes that call a function, one with each rank.

    Args:
        function: what they call.
        folder: where they leave what it returns, or the error that it raises.
        size: how many there are.
        arguments: of the function.
    """

    def __init__(self, function: Callable[..., Any], folder: Path, *arguments: Any, size: int = 2) -> None:
        self.files = [folder / f"rank-{rank}-of-{size}.pt" for rank in range(size)]
        fork = multiprocessing.get_context("fork")
        told = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        self.processes = [
            fork.Process(target=_one, args=(function, arguments, told | {"RANK": str(rank)}, file))
            for rank, file in enumerate(self.files)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which torch has
            for process in self.processes:
                process.start()

    def results(self) -> list[Any]:
        """What they returned or raised, in their order; None of one that was killed."""
        for process in self.processes:
            process.join(_LONGEST)
            if process.is_alive():
                process.kill()
                process.join()
        return [torch.load(file, weights_only=False) if file.exists() else None for file in self.files]


def ranks(function: Callable[..., Any], folder: Path, *arguments: Any, size: int = 2) -> list[Any]:
    """What processes return or raise, in the order of their ranks."""
    return Ranks(function, folder, *arguments, size=size).results()


def misfit(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of a tensor from the expected one, relative to that one's size."""
    pairs = [(found[name].double(), value.double()) for name, value in expected.items()]
    return max(float((one - other).norm() / other.norm().clamp_min(1e-3)) for one, other in pairs)


def _one(function: Callable[..., Any], arguments: tuple[Any, ...], told: dict[str, str], file: Path) -> None:
    """Be one of them."""
    os.environ.update(told)
    torch.set_num_threads(1)
    try:
        with joined():
            found = function(*arguments)
    except Exception as error:
        found = error
    torch.save(found, file)
    os._exit(0)
