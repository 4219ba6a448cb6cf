"""Images of many callers in full buckets: those that go on to another pass wait for others at the same point.

May import the rest of `rlprune.deployment` and below, nothing that trains.
"""

from rlprune.deployment.streaming.figures import StreamFigures
from rlprune.deployment.streaming.scheduler import Bucket, Scheduler
from rlprune.deployment.streaming.stream import Stream

__all__ = ["Bucket", "Scheduler", "Stream", "StreamFigures"]
