"""Training network and policy jointly: what runs late becomes a specialist for the images that come that far.

May import what `rlprune.agents` may.
"""

from rlprune.agents.joint.tuning import TuneSettings, tune

__all__ = ["TuneSettings", "tune"]
