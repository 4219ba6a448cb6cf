"""What runs over several processes and machines, on Ray: started here, or a cluster that is already up.

May import `rlprune.pipelines` and below. Ray (the extra `cluster`) is imported when something is to run on it: all else
works without it. `rlprune.cluster.serving` needs the extra `serve`, too, and is imported when a server starts.
"""

from rlprune.cluster.connection import Cluster, connected
from rlprune.cluster.predicting import Predicted, predict_files
from rlprune.cluster.replicas import Opening, Replicas
from rlprune.cluster.training import train_on

__all__ = ["Cluster", "Opening", "Predicted", "Replicas", "connected", "predict_files", "train_on"]
