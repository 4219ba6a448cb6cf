"""What a profile costs, in parameters, multiply-adds and measured time; which profiles are worth having.

May import `rlprune.elastic` and below.
"""

from rlprune.elastic.levels import MAX_PROFILES
from rlprune.policies.actions import nearest_profiles
from rlprune.profiles.codebook import random_profiles, sorted_codebook, uniform_codebook
from rlprune.profiles.cost import ComputeCost, Cost
from rlprune.profiles.latency import Latency
from rlprune.profiles.search import Search, best_within, choose_codebook, search_profiles

__all__ = [
    "MAX_PROFILES",
    "ComputeCost",
    "Cost",
    "Latency",
    "Search",
    "best_within",
    "choose_codebook",
    "nearest_profiles",
    "random_profiles",
    "search_profiles",
    "sorted_codebook",
    "uniform_codebook",
]
