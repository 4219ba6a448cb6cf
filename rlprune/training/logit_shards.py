"""A teacher's logits on disk: shards that are mapped into memory, so that sets of any size take none of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlprune.errors import RLPruneError
from rlprune.storage.provenance import check_ours, noted
from rlprune.training.parallel.group import current
from rlprune.utils.files import atomic_write, check_room
from rlprune.utils.locks import hold

_PER_SHARD = 4096
"""Images whose logits are in one file."""
_NOTE = "logits.json"


class LogitShards:
    """Logits on views of images, float16 (N, views, classes), in files of a folder.

    Args:
        folder: where they are.
        shape: (N, views, classes).

    Raises:
        RLPruneError: a file is missing or damaged.

    Attributes:
        shape: as given.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._shards = []
        for start in range(0, shape[0], _PER_SHARD):
            path = _path(folder, start)
            try:
                shard = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise RLPruneError(
                    f"{path} is missing or damaged ({error}); remove it, and it is made again"
                ) from error
            if shard.shape != (min(_PER_SHARD, shape[0] - start), *shape[1:]) or shard.dtype != np.float16:
                raise RLPruneError(f"{path} has another shape than its images; remove it, and it is made again")
            self._shards.append(shard)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: tuple[Tensor, Tensor]) -> Tensor:
        """Logits float16 (B, classes) of images and views, each by index, int64 (B,)."""
        images, views = (each.cpu().numpy() for each in rows)
        found = np.empty((len(images), self.shape[2]), np.float16)
        which = images // _PER_SHARD
        for number in np.unique(which):
            here = which == number
            found[here] = self._shards[number][images[here] % _PER_SHARD, views[here]]
        return torch.from_numpy(found)

    @classmethod
    def fill(
        cls,
        folder: Path,
        shape: tuple[int, int, int],
        note: Mapping[str, Any],
        compute: Callable[[int, int], Tensor],
    ) -> LogitShards:
        """Compute the shards that are not there yet, each whole or not at all; of several processes the first writes.

        Args:
            folder: where they go; new, empty, or begun with the same note.
            shape: (N, views, classes).
            note: what they are made of.
            compute: first image and the one behind the last -> float16 (B, views, classes); called by all processes
                alike.

        Raises:
            InUseError: another process fills the folder.
            RLPruneError: the folder holds something else.
            WriteError: there is no room.
        """
        group = current()
        with group.first(_begun(folder, shape, note)) as found:
            for start in group.from_first(lambda: found) or ():
                logits = compute(start, min(start + _PER_SHARD, shape[0]))
                if not group.leads:
                    continue
                with atomic_write(_path(folder, start)) as temporary, open(temporary, "wb") as file:
                    np.save(file, logits.numpy())
        group.wait()  # until the first has written all
        return cls(folder, shape)


@contextmanager
def _begun(folder: Path, shape: tuple[int, int, int], note: Mapping[str, Any]) -> Iterator[list[int]]:
    """Hold a folder while it is filled; the first images of the shards that it lacks."""
    with hold(folder):
        check_ours(folder, (folder / _NOTE).exists())
        missing = [start for start in range(0, shape[0], _PER_SHARD) if not _path(folder, start).exists()]
        check_room(folder, len(missing) * _PER_SHARD * shape[1] * shape[2] * 2)
        with noted(folder / _NOTE, note, what=str(folder), cure="go back to those, or remove the folder"):
            yield missing


def _path(folder: Path, start: int) -> Path:
    return folder / f"logits-{start // _PER_SHARD:06d}.npy"
