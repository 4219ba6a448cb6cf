"""A pretrained CNN of adjustable width and depth: channel groups, ranking, elastic layers, slices.

May import `rlprune.models` and below.
"""

from rlprune.elastic.axes import Axis
from rlprune.elastic.channels import Group, Member, UnprunableLayer
from rlprune.elastic.cnn import ElasticCNN
from rlprune.elastic.importance import Criterion
from rlprune.elastic.levels import KEEP_RATIOS, MAX_PROFILES, KeepLevels, nearest_profiles
from rlprune.elastic.module import ElasticModule

__all__ = [
    "KEEP_RATIOS",
    "MAX_PROFILES",
    "Axis",
    "Criterion",
    "ElasticCNN",
    "ElasticModule",
    "Group",
    "KeepLevels",
    "Member",
    "UnprunableLayer",
    "nearest_profiles",
]
