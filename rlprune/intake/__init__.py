"""What comes in: the images that a user names, prepared and divided as the network for them was trained.

May import `rlprune.storage` and below; the environment, the trainings and the command line build on it.
"""

from rlprune.intake.fitting import load_fitting
from rlprune.intake.options import DataOptions, ElasticOptions
from rlprune.intake.preparation import load_for

__all__ = ["DataOptions", "ElasticOptions", "load_fitting", "load_for"]
