"""What comes in before training: held-out images, what a folder was begun with, a trial of the network, prices.

May import `rlprune.pipelines` and below, and the types of `rlprune.optimization`, which imports it.
"""

from rlprune.optimization.entry.examined import Examined
from rlprune.optimization.entry.exporting import ms_of_file
from rlprune.optimization.entry.heldout import with_heldout
from rlprune.optimization.entry.memory import Memory
from rlprune.optimization.entry.origin import origin_of
from rlprune.optimization.entry.trying import Findings, may_mirror

__all__ = ["Examined", "Findings", "Memory", "may_mirror", "ms_of_file", "origin_of", "with_heldout"]
