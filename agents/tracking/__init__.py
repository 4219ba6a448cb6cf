"""What a training of a policy shows: TensorBoard's tags and files, and the trackers that get the same figures.

May import what `rlprune.agents` may, and nothing of it.
"""

from rlprune.agents.tracking.tags import NETWORK_TAGS, TAGS, Tag

__all__ = ["NETWORK_TAGS", "TAGS", "Tag"]
