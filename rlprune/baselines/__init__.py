"""Rivals to compare with: cascades with tuned thresholds, static pruning, gates inside the network, and your own.

May import `rlprune.training` and below.
"""

from rlprune.baselines.cascade import Cascade, best_cascades, cascade_policy, within
from rlprune.baselines.gate_training import GateSettings, train_gates
from rlprune.baselines.gated_cnn import GatedCNN
from rlprune.baselines.rivals import Rival, RivalInputs, RivalPoint
from rlprune.baselines.static_pruning import StaticSettings, remove_masks, static_network, static_profile
from rlprune.baselines.stored import SavedGated, SavedPlain, load_gated, load_plain, save_gated, save_plain, save_sliced

__all__ = [
    "Cascade",
    "GateSettings",
    "GatedCNN",
    "Rival",
    "RivalInputs",
    "RivalPoint",
    "SavedGated",
    "SavedPlain",
    "StaticSettings",
    "best_cascades",
    "cascade_policy",
    "load_gated",
    "load_plain",
    "remove_masks",
    "save_gated",
    "save_plain",
    "save_sliced",
    "static_network",
    "static_profile",
    "train_gates",
    "within",
]
