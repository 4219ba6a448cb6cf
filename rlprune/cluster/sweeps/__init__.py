"""Sweeps: many policies of one network, trained side by side under Ray Tune, and what they share.

Every trial is one policy, trained as `rlprune train` trains it. What the network says of the images is computed once
and lies in Ray's object store. May import what `rlprune.cluster` may.
"""

from rlprune.cluster.sweeps.logits import Shared
from rlprune.cluster.sweeps.results import SweepResult, SweepRow
from rlprune.cluster.sweeps.space import Range, Space
from rlprune.cluster.sweeps.sweep import PolicySweep

__all__ = ["PolicySweep", "Range", "Shared", "Space", "SweepResult", "SweepRow"]
