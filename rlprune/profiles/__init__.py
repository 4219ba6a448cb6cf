"""The cost of profiles in parameters, MACs and measured time, and the search for good ones.

May import `rlprune.elastic` and below.
"""

from rlprune.profiles.codebook import random_profiles, sorted_codebook, uniform_codebook
from rlprune.profiles.cost import ComputeCost, Cost
from rlprune.profiles.latency import Latency
from rlprune.profiles.search import Search, best_within, choose_codebook, search_profiles
from rlprune.profiles.timing import Backend

__all__ = [
    "Backend",
    "ComputeCost",
    "Cost",
    "Latency",
    "Search",
    "best_within",
    "choose_codebook",
    "random_profiles",
    "search_profiles",
    "sorted_codebook",
    "uniform_codebook",
]
