"""Accuracy, measured by all processes together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.metrics import accuracy
from rlprune.training.parallel.group import current


def shared_accuracy(predict: Callable[[Tensor], Tensor], data: ImageSet, batch_size: int = 256) -> float:
    """What `rlprune.metrics.accuracy` gives, the batches being divided among the processes.

    Every batch holds the images that it holds in one process, so the result is the same to the last digit.

    Args:
        predict: normalised images (B, C, H, W) on the CPU -> logits (B, classes), in eval mode.
        data: the images, the same in all processes.
        batch_size: images at once.

    Raises:
        ClusterError: a process was lost.
        NotFiniteError: a logit is NaN or infinite.
    """
    group = current()
    if group.size == 1:
        return accuracy(predict, data, batch_size)
    batches = group.part(-(-len(data) // batch_size))
    own = data.subset(slice(batches.start * batch_size, batches.stop * batch_size))
    n_correct = round(accuracy(predict, own, batch_size) * len(own)) if len(own) else 0
    return int(group.sum(torch.tensor(n_correct))) / len(data)
