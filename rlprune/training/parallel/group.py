"""The processes that train one network together: who they are, and what they tell each other."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _set_pg_timeout as set_timeout  # which torch documents

from rlprune.errors import ClusterError

_T = TypeVar("_T")

ARRIVAL = timedelta(minutes=1)
"""How long the processes of `joined` look for each other; they have imported what they need by then, and no more."""
PATIENCE = timedelta(minutes=5)
"""How long one process waits for another in a step. One that was killed is noticed at once, by its connections."""
_FOREVER = timedelta(days=365)
"""How long the others wait while the first does alone what cannot be divided."""


@dataclass(frozen=True)
class Group:
    """The processes that train together, as one of them sees it.

    Its methods, but for `part`, are to be called by all processes alike, in the same order.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the first, which alone writes and prints."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """Which of n items are this process's: one piece, in the order of the processes, as many for each as can be."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Add up tensors of the same shape, in place.

        Raises:
            ClusterError: a process was lost.
        """
        if self.size > 1:
            with _heard():
                dist.all_reduce(values)
        return values

    def total(self, values: list[float]) -> list[float]:
        """Add up numbers, each of them over all processes.

        Raises:
            ClusterError: a process was lost.
        """
        found: list[float] = self.sum(torch.tensor(values, dtype=torch.float64, device=_device())).tolist()
        return found

    def any(self, flag: bool) -> bool:
        """Whether it is so for any of them.

        Raises:
            ClusterError: a process was lost.
        """
        return flag if self.size == 1 else self.total([flag]) != [0]

    def gather(self, values: Tensor) -> Tensor:
        """Put the parts of a tensor (n, ...) together, in the order of the processes; n may differ.

        Raises:
            ClusterError: a process was lost.
        """
        if self.size == 1:
            return values
        sizes = torch.zeros(self.size, dtype=torch.int64, device=values.device)
        sizes[self.rank] = len(values)
        counts = self.sum(sizes).tolist()
        padded = values.new_zeros(max(counts), *values.shape[1:])
        padded[: len(values)] = values.detach()
        found = [torch.empty_like(padded) for _ in counts]
        with _heard():
            dist.all_gather(found, padded)
        return torch.cat([part[:n] for part, n in zip(found, counts, strict=True)])

    def each(self, value: Any) -> list[Any]:
        """The values of all of them, in their order; what `pickle` takes.

        Raises:
            ClusterError: a process was lost.
        """
        if self.size == 1:
            return [value]
        found = [None] * self.size
        with _heard():
            dist.all_gather_object(found, value)
        return found

    def from_first(self, make: Callable[[], _T]) -> _T:
        """Let the first process make something, however long that takes, and give it to all; an error, too.

        Raises:
            ClusterError: a process was lost.
            Exception: what `make` raises, in all processes, with the attribute `agreed`.
        """
        if self.size == 1:
            return make()
        said: list[Any] = [None, None]
        if self.leads:
            try:
                said[0] = make()
            except Exception as error:
                said[1] = _sendable(error)
        with _heard():
            dist.broadcast_object_list(said, src=0, group=_patient(PATIENCE))
        if said[1] is not None:
            said[1].agreed = True
            raise said[1]
        made: _T = said[0]
        return made

    @contextmanager
    def first(self, context: AbstractContextManager[_T]) -> Iterator[_T | None]:
        """Let the first process alone enter a context, such as a lock; all raise what it raises.

        Yields:
            What the context gives; None in other processes.

        Raises:
            ClusterError: a process was lost.
        """
        with ExitStack() as stack:
            entered: list[_T] = []
            self.from_first(lambda: entered.append(stack.enter_context(context)))
            yield entered[0] if entered else None

    def wait(self) -> None:
        """Wait until all are here, however long that takes.

        Raises:
            ClusterError: a process was lost.
        """
        self.from_first(lambda: None)


ALONE = Group()
"""A single process."""


def current() -> Group:
    """The group of this process: that of `torch.distributed`, whoever began it; alone where there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Group(dist.get_rank(), dist.get_world_size())


def launched() -> int:
    """How many processes torchrun has started, as it tells each of them; 1 where it started none.

    Raises:
        ClusterError: it tells something that is no number.
    """
    said = os.environ.get("WORLD_SIZE", "1")
    if not (said.isdecimal() and int(said)):
        raise ClusterError(f"WORLD_SIZE={said!r} is no number of processes; start them with torchrun")
    return int(said)


@contextmanager
def joined(patience: timedelta = PATIENCE) -> Iterator[Group]:
    """Be one of the processes that torchrun has started, for the length of a block: gloo on CPUs, nccl on GPUs.

    Each process of a machine has a GPU of its own, which is its `cuda`.

    Args:
        patience: how long one process waits for another in a step.

    Yields:
        The group; a single process where torchrun has started no others.

    Raises:
        ClusterError: the others cannot be reached, or one of them is lost before all have found each other.
    """
    if launched() == 1 or current().size > 1:
        yield current()
        return
    n_here, here = (int(os.environ.get(f"LOCAL_{name}", number)) for name, number in (("WORLD_SIZE", 1), ("RANK", 0)))
    own_cards = dist.is_nccl_available() and 0 < n_here <= torch.cuda.device_count()
    if own_cards:
        torch.cuda.set_device(here)
    try:
        with _heard("the processes that torchrun started do not find each other, or one was lost"):
            dist.init_process_group("cpu:gloo,cuda:nccl" if own_cards else "gloo", timeout=ARRIVAL)
            _patient(ARRIVAL)
            set_timeout(patience)
        yield current()
    finally:
        _groups.clear()
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()


@contextmanager
def _heard(
    what: str = "another process of this training was lost, or ended with an error of its own",
) -> Iterator[None]:
    """Say in one line that others cannot be heard.

    Raises:
        ClusterError: they cannot.
    """
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:  # what torch.distributed raises, by backend and moment
        reason = str(error).strip().partition("\n")[0][:200]
        raise ClusterError(f"{what} ({reason}); start them all again: what the last checkpoint has stays") from error


_groups: list[Any] = []
"""The group of the patient, once it is made."""


def _patient(arrival: timedelta) -> Any:
    """The same processes, who wait for each other as long as it takes, once they have found each other.

    Args:
        arrival: how long they look for each other. One that is lost meanwhile is noticed by nothing else, as there are
            no connections yet.
    """
    if not _groups:
        group = dist.new_group(backend="gloo", timeout=arrival)
        set_timeout(_FOREVER, group)
        _groups.append(group)
    return _groups[0]


def _device() -> str:
    """Where small tensors are that the group exchanges."""
    return "cpu" if "gloo" in str(dist.get_backend_config()) else "cuda"


def _sendable(error: Exception) -> Exception:
    """An error as other processes can get it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ClusterError(f"the first process ended with {type(error).__name__}: {error}")
    return error
