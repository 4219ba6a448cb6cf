"""The layers of adjustable width, each of which can also become an ordinary layer of what it keeps.

May import `rlprune.elastic.axes`, and what `rlprune.elastic` may import.
"""

from rlprune.elastic.layers.base import Choice, ElasticLayer, GroupLayer, Rates
from rlprune.elastic.layers.batch_norm import ElasticBatchNorm
from rlprune.elastic.layers.dense import ElasticConv2d, ElasticConvTranspose2d, ElasticLinear

__all__ = [
    "Choice",
    "ElasticBatchNorm",
    "ElasticConv2d",
    "ElasticConvTranspose2d",
    "ElasticLayer",
    "ElasticLinear",
    "GroupLayer",
    "Rates",
]
