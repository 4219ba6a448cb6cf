"""Pixels fetched batch by batch: out of memory, or decoded ahead by the workers of a DataLoader."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rlprune.data.augmentation import take_views
from rlprune.data.streamed.pixels import Pixels, Rows, StreamedPixels
from rlprune.errors import DataError, RLPruneError

Job = tuple[Rows, Tensor | None]
"""Which rows; and a view of each, as `rlprune.data.augmentation.take_views` takes them, or None."""

_AHEAD = 2
"""Batches that each worker prepares ahead."""
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Workers:
    """Processes that decode images ahead.

    Attributes:
        n: how many; 0 decodes in this process; None takes as many as there are processors for it.
        pin: put what is decoded where a graphics card fetches it fast.
    """

    n: int | None = None
    pin: bool = False


def default_workers() -> int:
    """As many as this process has processors, at most 8; shared among the processes of a training that has several."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_WORKERS, max(1, n_cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))))


def fetch(
    pixels: Pixels,
    jobs: Iterable[Job],
    *,
    padding: int = 0,
    workers: Workers | None = None,
    device: str | torch.device = "cpu",
) -> Generator[Tensor, None, None]:
    """The pixels of one batch after the other, in the order of the jobs, however many workers there are.

    Out of memory, each is taken when it is asked for, and so are the jobs. Streamed ones are decoded ahead by workers,
    which end with the last batch, or when the iterator is closed.

    Args:
        pixels: of all images.
        jobs: what is in each batch.
        padding: as in `rlprune.data.augmentation.take_views`.
        workers: how streamed ones are decoded; as many workers as there are processors if None.
        device: where they are wanted. Those out of memory are shifted and mirrored there.

    Yields:
        uint8 (B, C, H, W), on the device.

    Raises:
        DataError: an image is damaged, gone, or of another size than the others.
        RLPruneError: a worker was ended from outside.
    """
    if not isinstance(pixels, StreamedPixels):
        for rows, views in jobs:
            found = pixels[rows]
            if views is not None and views.is_floating_point():  # cut out, which Pillow does
                found, views = take_views(found, views, padding=padding), None
            found = found.to(device)
            yield found if views is None else take_views(found, views, padding=padding)
        return
    workers = workers or Workers()
    n_workers = default_workers() if workers.n is None else workers.n
    if multiprocessing.current_process().daemon:
        n_workers = 0  # which may have no children of their own
    loader: Any = DataLoader(
        _Jobs(pixels, padding),
        batch_size=None,
        sampler=jobs,  # type: ignore[arg-type]
        num_workers=n_workers,
        prefetch_factor=_AHEAD if n_workers else None,
        pin_memory=workers.pin,
        worker_init_fn=_begin if n_workers else None,
        generator=torch.Generator(),  # else it would draw from the global one
    )
    batches = iter(loader)
    try:
        while True:
            try:
                found = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "worker" not in str(error):
                    raise
                raise RLPruneError(
                    f"a process that decodes images was ended from outside ({str(error).splitlines()[0]}): it may have "
                    "had too little memory, or /dev/shm too little room; fewer workers need less, workers=0 none of it"
                ) from error
            if isinstance(found, Exception):
                raise found
            yield found.to(device, non_blocking=workers.pin)
    finally:
        del batches  # and with it the workers


class _Jobs(Dataset[Any]):
    """What workers do: decode a batch; an error is handed on as it is, without their traceback."""

    def __init__(self, pixels: StreamedPixels, padding: int) -> None:
        self._pixels = pixels
        self._padding = padding

    def __getitem__(self, job: Job) -> Tensor | DataError:
        rows, views = job
        try:
            return self._pixels.at(rows).decoded(views, self._padding)
        except DataError as error:
            return error


def _begin(_: int) -> None:
    """Leave Ctrl-C to the process that trains, and end when it says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
