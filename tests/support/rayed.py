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

HOW: dict[str, Any] = {"epochs": 2, "batch_size": 16, "bf16": False, "learning_rate": 0.001, "padding": 2}


def trained(checkpoint: Path, dies: Path | None = None) -> tuple[int, dict[str, Tensor]]:
    """Train, and once die after the first epoch; how many did, and the weights."""

    def log(*_: Any) -> None:
        if dies is not None and checkpoint.exists() and not dies.exists():
            dies.touch()
            os._exit(9)

    model = network("plain")
    pretrain(model, make_data(40), TrainingSettings(**HOW), checkpoint=checkpoint, log=log)
    return current().size, model.state_dict()
