"""Folders that hold a network, a policy, or both: written whole, checked by SHA-256, free of pickle and code.

May import `rlprune.deployment` and below, nothing that trains.
"""

from rlprune.storage.bundle import load, push_to_hub, save_bundle
from rlprune.storage.data_format import DataFormat
from rlprune.storage.networks import SavedNetwork, load_network, save_network
from rlprune.storage.policies import SavedPolicy, load_policy, save_policy

__all__ = [
    "DataFormat",
    "SavedNetwork",
    "SavedPolicy",
    "load",
    "load_network",
    "load_policy",
    "push_to_hub",
    "save_bundle",
    "save_network",
    "save_policy",
]
