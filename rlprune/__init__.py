"""Reinforcement-learning pruning for CNNs: each image runs through as much of the network as it needs.

    images (N, C, H, W) uint8 -> normalised float32 -> stem -> policy: levels (N, G) -> slices of the body -> logits

`ElasticCNN` makes a pretrained network adjustable, `adapt` trains its slices, `rlprune.envs` is the world in which
`rlprune.agents` learns a policy, `save_bundle` writes both and `load` reads them back as a `DynamicCNN`.
"""

from rlprune import data, models
from rlprune.adapt import AdaptSettings, adapt
from rlprune.bundle import load, save_bundle
from rlprune.control import Controller
from rlprune.cost import Cost
from rlprune.elastic import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.evaluate import evaluate
from rlprune.pretrain import accuracy, pretrain
from rlprune.runtime import DynamicCNN, Prediction
from rlprune.training import TrainingSettings

__all__ = [
    "AdaptSettings",
    "Controller",
    "Cost",
    "DynamicCNN",
    "ElasticCNN",
    "Prediction",
    "RLPruneError",
    "TrainingSettings",
    "accuracy",
    "adapt",
    "data",
    "evaluate",
    "load",
    "models",
    "pretrain",
    "save_bundle",
]
