"""What trainings of one network share through Ray's object store: network, images, and its logits, computed once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlprune.cluster.connection import Cluster
from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.envs.logit_cache import LogitCache
from rlprune.errors import ClusterError, RLPruneError
from rlprune.profiles.search import Search, profile_accuracies, search_profiles

Stored = tuple[ElasticCNN, list[tuple[ImageSet, NDArray[Any], NDArray[Any]]]]
"""A network and sets of images as the object store has them: arrays, which all processes of a machine read in place."""
Known = list[dict[str, NDArray[np.float32]]]
"""Logits of each set: those of the profiles of a codebook, (K, N, classes), of the whole network, (1, N, classes)."""
_SPARE = 1.2
"""What the store must hold, over what lies in it for good: results of tasks come on top, and go."""


class Shared:
    """A network and sets of images in Ray's object store, and what tasks compute of them, each on one processor.

    Args:
        cluster: where.
        network: the network, on the CPU.
        sets: of images.
        n_profiles: of each codebook whose logits will be asked for.

    Attributes:
        stored: reference to network and images.

    Raises:
        ClusterError: the object store of a machine is too small for all of it, or full.
    """

    def __init__(
        self, cluster: Cluster, network: ElasticCNN, sets: Sequence[ImageSet], n_profiles: Sequence[int] = ()
    ) -> None:
        self._ray = cluster.ray
        self._network, self._sets = network, tuple(sets)
        check_room(cluster, network, sets, n_profiles)
        self.stored = self._put(_packed(network, sets))

    def search(self, asked: Sequence[tuple[int, int]]) -> list[Search]:
        """Search static profiles by the first set of images, as `rlprune.profiles.search.search_profiles` does.

        Args:
            asked: how many candidates, and the seed, of each search; they run side by side.
        """
        return self._done(_search, [(self.stored, *each) for each in asked])

    def logits(self, codebook: Tensor | None) -> Any:
        """Compute the logits of a codebook, a task for each table.

        Args:
            codebook: int64 (K, G); None where no profiles are chosen, which needs the whole network's alone.

        Returns:
            Reference to what `logit_caches` takes: the same numbers, to the last digit, as a `LogitCache` computes.

        Raises:
            NotFiniteError: one is NaN or infinite.
        """
        known: Known = []
        tasks = []
        for index, images in enumerate(self._sets):
            tables = LogitCache(self._network, images, codebook).tables
            known.append({name: np.empty(table.shape, np.float32) for name, table in tables.items()})
            tasks += [(index, name, each) for name, table in tables.items() for each in range(table.shape[0])]
        found = self._done(_rows, [(self.stored, codebook, *task) for task in tasks])
        for (index, name, each), rows in zip(tasks, found, strict=True):
            known[index][name][each] = rows
        return self._put(known)

    def accuracies(self, profiles: Tensor) -> Tensor:
        """Accuracy of static profiles, int64 (M, G), on the first set, a task for each: float64 (M,)."""
        return torch.cat(self._done(_accuracy, [(self.stored, profile[None]) for profile in profiles]))

    def _done(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What a function gives for several calls, side by side; a task whose process dies is done again.

        Raises:
            ClusterError: its process dies time and again.
            RLPruneError: what it raises.
        """
        task = self._ray.remote(num_cpus=1, max_retries=3)(function)
        try:
            return list(self._ray.get([task.remote(*call) for call in calls]))
        except self._ray.exceptions.RayTaskError as error:  # whose text is a traceback
            if isinstance(error.cause, RLPruneError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            reason = str(error).partition("\n")[0]
            raise ClusterError(
                f"a process of Ray was lost, and again when it was started anew ({reason}); give the "
                "same command again, with fewer processors if it was memory"
            ) from error

    def _put(self, value: Any) -> Any:
        """Put something into the object store.

        Raises:
            ClusterError: others have filled it, and the disk that it moves things to.
        """
        try:
            return self._ray.put(value)
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise ClusterError(
                f"Ray's object store takes no more ({reason}); let what else fills it end, start Ray with a larger "
                "--object-store-memory, or make room on the disk that it moves objects to"
            ) from error


def check_room(cluster: Cluster, network: nn.Module, sets: Sequence[ImageSet], n_profiles: Sequence[int]) -> None:
    """Make sure that what is shared finds room in the object store, before anything long begins.

    Args:
        cluster: where.
        network: the network.
        sets: of images.
        n_profiles: of each codebook whose logits will be asked for.

    Raises:
        ClusterError: the object store of a machine is too small for all of it.
    """
    n_bytes = sum(value.nbytes for value in network.state_dict().values())
    n_logits = 0
    for images in sets:
        n_bytes += math.prod(images.images.shape) + images.labels.nbytes
        n_logits += len(images) * len(images.classes) * 4
    need = _SPARE * (n_bytes + sum(n + 1 for n in n_profiles) * n_logits)
    rooms = [each["Resources"].get("object_store_memory", 0) for each in cluster.ray.nodes() if each["Alive"]]
    if need > min(rooms):
        raise ClusterError(
            f"images, network and logits of {len(n_profiles)} codebooks need {need / 2**20:.0f} MiB in Ray's "
            f"object store, and a machine's holds {min(rooms) / 2**20:.0f} MiB; start Ray with `ray start --head "
            f"--object-store-memory {int(1.1 * need)}` and give its address, or take fewer images or codebooks"
        )


def opened(stored: Stored) -> tuple[ElasticCNN, list[ImageSet]]:
    """Network and images of the object store, in a process that trains or computes on one processor."""
    torch.set_num_threads(1)
    network, sets = stored
    return network, [replace(each, images=_view(pixels), labels=_view(labels)) for each, pixels, labels in sets]


def logit_caches(
    network: ElasticCNN, sets: Sequence[ImageSet], codebook: Tensor | None, known: Known
) -> list[LogitCache]:
    """Caches that begin with all logits known, one for each set of images.

    Args:
        network: the network.
        sets: the images.
        codebook: int64 (K, G), or None.
        known: what `Shared.logits` refers to.
    """
    caches = [LogitCache(network, images, codebook) for images in sets]
    for cache, tables in zip(caches, known, strict=True):
        for name, table in cache.tables.items():
            table.take(_view(tables[name]))
    return caches


def _packed(network: ElasticCNN, sets: Sequence[ImageSet]) -> Stored:
    empty = torch.empty(0)
    return network, [  # streamed images are decoded here, once: all trainings read them
        (replace(each, images=empty, labels=empty), each.images[:].contiguous().numpy(), each.labels.numpy())
        for each in sets
    ]


def _view(array: NDArray[Any]) -> Tensor:
    """A tensor over an array that may not be written, as nobody does; torch would warn of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _search(stored: Stored, n_candidates: int, seed: int) -> Search:
    network, sets = opened(stored)
    return search_profiles(network, sets[0], n_candidates, seed)


def _accuracy(stored: Stored, profile: Tensor) -> Tensor:
    network, sets = opened(stored)
    return profile_accuracies(network, sets[0], profile)


def _rows(stored: Stored, codebook: Tensor | None, index: int, name: str, table: int) -> NDArray[np.float32]:
    """Logits of all images of a set in one table, float32 (N, classes)."""
    network, sets = opened(stored)
    images = torch.arange(len(sets[index]))
    found = LogitCache(network, sets[index], codebook).tables[name](torch.full_like(images, table), images)
    rows: NDArray[np.float32] = found.numpy()
    return rows
