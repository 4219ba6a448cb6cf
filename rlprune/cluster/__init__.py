"""What runs over several processes and machines, on Ray: started here, or a cluster that is already up.

May import `rlprune.pipelines` and below. Ray (the extra `cluster`) is imported when something is to run on it: all else
works without it.
"""

from rlprune.cluster.connection import Cluster, connected
from rlprune.cluster.training import train_on

__all__ = ["Cluster", "connected", "train_on"]
