"""The cost of profiles in parameters, multiply-adds and measured time, and the search for good ones.

May import `rlprune.elastic` and below.
"""

from rlprune.elastic.levels import MAX_PROFILES, nearest_profiles
from rlprune.profiles.codebook import random_profiles, sorted_codebook, uniform_codebook
from rlprune.profiles.cost import ComputeCost, Cost
from rlprune.profiles.latency import Latency
from rlprune.profiles.search import Search, best_within, choose_codebook, profile_accuracies, search_profiles

__all__ = [
    "MAX_PROFILES",
    "ComputeCost",
    "Cost",
    "Latency",
    "Search",
    "best_within",
    "choose_codebook",
    "nearest_profiles",
    "profile_accuracies",
    "random_profiles",
    "search_profiles",
    "sorted_codebook",
    "uniform_codebook",
]
