"""What workers of Ray train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nets import make_data, network
from torch import Tensor

from rlprune.training.parallel.group import current
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings

HOW: dict[str, Any] = {"batch_size": 128, "bf16": False, "channels_last": False, "learning_rate": 0.001, "padding": 2}
"""The 1280 images are ten steps an epoch."""


def trained(checkpoint: Path, epochs: int = 2) -> tuple[int, dict[str, Tensor]]:
    """Train; how many did, and the weights. Each adds its process to a file beside the checkpoint, for every start."""
    with checkpoint.with_suffix(".processes").open("a") as processes:
        processes.write(f"{os.getpid()}\n")
    model = network("plain")
    pretrain(model, make_data(1280), TrainingSettings(epochs=epochs, **HOW), checkpoint=checkpoint)
    return current().size, model.state_dict()
