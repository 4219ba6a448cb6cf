"""Whether all processes are about to train the same network in the same way: found before the first step."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from rlprune.data.image_set import ImageSet
from rlprune.errors import ClusterError
from rlprune.storage.provenance import HOW, differences, fingerprint, plain
from rlprune.training.parallel.group import current
from rlprune.training.settings import TrainingSettings

_SOME = 32
"""Images of a set that are compared; of the labels, all."""


def check_alike(network: nn.Module, data: ImageSet, settings: TrainingSettings) -> None:
    """Make sure that all processes have the same settings, network, images and versions.

    Args:
        network: what is to be trained.
        data: its training images.
        settings: how.

    Raises:
        ClusterError: one has others than the first has; the message, the same in all processes, says which and what.
    """
    group = current()
    if group.size == 1:
        return
    some = torch.linspace(0, len(data) - 1, min(_SOME, len(data))).long()
    how = {key: value for key, value in plain(settings).items() if key not in HOW}
    own: dict[str, Any] = {
        "settings": how | {"computes in bf16": settings.computes_in_bf16},
        "version": {
            "rlprune": vars(sys.modules["rlprune"]).get("__version__"),
            "torch": torch.__version__.partition("+")[0],
        },
        "network": fingerprint(*network.state_dict().values()),
        "images": [len(data), *data.classes, fingerprint(data.labels, data.normalised(some))],
    }
    first, *others = group.each(own)
    for rank, other in enumerate(others, 1):
        found = [f"{key}.{each}" for key in ("settings", "version") for each in differences(first[key], other[key])]
        found += [f"the {key}" for key in ("network", "images") if first[key] != other[key]]
        if found:
            error = ClusterError(
                f"process {rank} differs from process 0 in {'; '.join(found)}: start all with the same command on the "
                "same files"
            )
            error.agreed = True  # type: ignore[attr-defined]
            raise error
