"""Reinforcement-learning pruning for CNNs: each image runs through as much of the network as it needs.

    images (N, C, H, W) uint8 -> normalised float32 -> stem -> policy: levels (N, G) -> slices of the body -> logits

`ElasticCNN` makes a pretrained network adjustable, `adapt` trains its slices, `rlprune.envs` is the world in which
`rlprune.agents` learns a policy, `save_bundle` writes both and `load` reads them back as a `DynamicCNN`.

What serves is imported at once; what trains or measures when it is first asked for, so that serving needs none of it.
"""

from __future__ import annotations

from rlprune import startup

if startup.is_command_line():
    startup.begin()

from typing import TYPE_CHECKING, Any

from rlprune import data, models
from rlprune.deployment.controller import Controller
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.prediction import Prediction
from rlprune.deployment.streaming.stream import Stream
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.metrics import accuracy
from rlprune.moved import MOVED, module_of
from rlprune.profiles.cost import Cost
from rlprune.storage.bundle import load, push_to_hub, save_bundle
from rlprune.utils.imports import require

if TYPE_CHECKING:
    from rlprune.evaluation.dynamic import evaluate
    from rlprune.optimization.job import optimize
    from rlprune.training.adaptation import AdaptSettings, adapt
    from rlprune.training.pretraining import pretrain
    from rlprune.training.settings import TrainingSettings

__all__ = [
    "AdaptSettings",
    "Controller",
    "Cost",
    "DynamicCNN",
    "ElasticCNN",
    "Prediction",
    "RLPruneError",
    "Stream",
    "TrainingSettings",
    "__version__",
    "accuracy",
    "adapt",
    "data",
    "evaluate",
    "load",
    "models",
    "optimize",
    "pretrain",
    "push_to_hub",
    "save_bundle",
]

__version__ = "0.2.0"

_ON_DEMAND = {
    "AdaptSettings": "rlprune.training.adaptation",
    "TrainingSettings": "rlprune.training.settings",
    "adapt": "rlprune.training.adaptation",
    "evaluate": "rlprune.evaluation.dynamic",
    "optimize": "rlprune.optimization.job",
    "pretrain": "rlprune.training.pretraining",
}


def __getattr__(name: str) -> Any:
    if name in MOVED:
        return module_of(name)
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(require(_ON_DEMAND[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
