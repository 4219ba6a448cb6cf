"""CNNs by name or of your own, and their weights.

May import `rlprune.data` and below.
"""

from rlprune.models.architectures import BasicBlock, Chain, ResNet
from rlprune.models.registry import NAMES, build, check_outputs
from rlprune.models.weights import find_weights, load_weights, save_weights

__all__ = [
    "NAMES",
    "BasicBlock",
    "Chain",
    "ResNet",
    "build",
    "check_outputs",
    "find_weights",
    "load_weights",
    "save_weights",
]
