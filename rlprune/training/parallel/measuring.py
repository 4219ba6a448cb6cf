"""What networks say of images, and how often they are right, found by all processes together.

Each process takes whole batches, so every image stands beside those that it stands beside in one process, and all get
what one process computes, up to rounding. All have to call these functions alike, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.module import ElasticModule
from rlprune.metrics import accuracy
from rlprune.profiles.search import profile_accuracies
from rlprune.training.parallel.group import current

_T = TypeVar("_T")


def own_rows(data: ImageSet, batch_size: int) -> slice:
    """Which of the images are this process's; none where there are fewer batches than processes."""
    batches = current().part(-(-len(data) // batch_size))
    return slice(batches.start * batch_size, min(batches.stop * batch_size, len(data)))


def shared_accuracy(
    predict: Callable[[Tensor], Tensor], data: ImageSet, batch_size: int = 256, device: str | torch.device = "cpu"
) -> float:
    """What `rlprune.metrics.accuracy` gives, the batches being divided among the processes.

    Args:
        predict: normalised images (B, C, H, W) on the device -> logits (B, classes), in eval mode.
        data: the images, the same in all processes.
        batch_size: images at once.
        device: where `predict` wants its images.

    Raises:
        ClusterError: a process was lost.
        NotFiniteError: a logit is NaN or infinite.
    """
    if current().size == 1:
        return accuracy(predict, data, batch_size, device)
    return float(_summed(lambda own: torch.tensor([accuracy(predict, own, batch_size, device)]), data, batch_size, 1))


def shared_accuracies(elastic: ElasticModule, data: ImageSet, profiles: Tensor, label: str = "search") -> Tensor:
    """What `rlprune.profiles.search.profile_accuracies` gives, the images being divided among the processes.

    Args:
        elastic: the network.
        data: the images, the same in all processes.
        profiles: int64 (M, G).
        label: text of the progress bar.

    Returns:
        Accuracy of each, float64 in [0, 1], (M,).

    Raises:
        ClusterError: a process was lost.
        NotFiniteError: a logit is NaN or infinite.
    """
    group = current()
    if group.size == 1:
        return profile_accuracies(elastic, data, profiles, label)
    measure = partial(profile_accuracies, elastic, profiles=profiles, label=label, hidden=not group.leads)
    return _summed(measure, data, 256, len(profiles))


def shared_rows(compute: Callable[[ImageSet], Tensor], data: ImageSet, batch_size: int = 256, dim: int = 0) -> Tensor:
    """What is computed of images batch by batch, each process computing a part.

    Args:
        compute: images -> something of each, a tensor on the CPU.
        data: the images, the same in all processes.
        batch_size: images that it computes at once.
        dim: the dimension of the tensor in which the images are.

    Returns:
        That of all images.

    Raises:
        ClusterError: a process was lost.
    """
    if current().size == 1:
        return compute(data)
    rows = own_rows(data, batch_size)
    if rows.start < rows.stop:
        own = compute(data.subset(rows)).movedim(dim, 0)
    else:
        own = compute(data.subset(slice(0, 1))).movedim(dim, 0)[:0]  # in the shape of the others'
    return current().gather(own).movedim(0, dim).contiguous()


def shared_parts(compute: Callable[[ImageSet], _T], data: ImageSet, batch_size: int = 256) -> list[_T]:
    """What each process computes of its images, batch by batch; in the order of the images, and alike for all.

    Args:
        compute: images -> anything that `pickle` takes, but None.
        data: the images, the same in all processes.
        batch_size: images that it computes at once.

    Raises:
        ClusterError: a process was lost.
    """
    rows = own_rows(data, batch_size)
    found = current().each(compute(data.subset(rows)) if rows.start < rows.stop else None)
    return [part for part in found if part is not None]


def _summed(measure: Callable[[ImageSet], Tensor], data: ImageSet, batch_size: int, n: int) -> Tensor:
    """Shares of all images, float64 (n,), of what measures shares of the images of a set."""
    rows = own_rows(data, batch_size)
    n_own = rows.stop - rows.start
    counts = (measure(data.subset(rows)).double() * n_own).round() if n_own > 0 else torch.zeros(n, dtype=torch.float64)
    return current().sum(counts) / len(data)
