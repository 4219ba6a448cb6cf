from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nets import make_elastic

from rlprune.optimization.entry.pricing import pricing_seconds, profiles_in_use, untrained_in_use
from rlprune.optimization.goal import Goal
from rlprune.profiles.search import Search

ELASTIC = make_elastic("residual")
PROFILES = torch.stack([ELASTIC.uniform(level) for level in range(1, ELASTIC.n_levels)])
BY_MACS = Search(PROFILES, torch.tensor([0.5, 0.89, 0.9, 0.91]).double(), torch.ones(4).double()).by_macs(ELASTIC)


def test_a_slice_that_runs_badly_is_not_used_where_time_is_the_price() -> None:
    times = replace(BY_MACS, price=torch.tensor([0.2, 1.5, 0.5, 1.0]).double())
    by_time = profiles_in_use(ELASTIC, times, 4, allowed=0.5).tolist()
    assert PROFILES[1].tolist() in profiles_in_use(ELASTIC, BY_MACS, 8, allowed=0.5).tolist()
    assert PROFILES[1].tolist() not in by_time
    assert by_time[-1] == ELASTIC.full.tolist()


def test_where_nothing_is_faster_profiles_are_chosen_by_macs() -> None:
    times = replace(BY_MACS, price=torch.tensor([1.01, 1.0, 1.2, 1.0]).double())
    assert profiles_in_use(ELASTIC, times, 4, 1.0).equal(profiles_in_use(ELASTIC, BY_MACS, 4, 1.0))


def test_slices_are_timed_where_the_goal_is_a_time_and_the_more_the_longer_it_may_take() -> None:
    assert pricing_seconds(Goal(max_macs=0.5), ELASTIC, 60.0) == 0
    seconds = [pricing_seconds(Goal(min_speedup=2.0), ELASTIC, minutes) for minutes in (5.0, 20.0, 60.0)]
    assert 15 < seconds[0] < seconds[1] <= seconds[2] < 0.07 * 3600
    assert pricing_seconds(Goal(min_speedup=2.0, backend="pytorch"), ELASTIC, 5.0) == pytest.approx(0.2 * 24 + 9, abs=8)


def test_resolutions_are_used_where_the_lowest_is_within_the_goal() -> None:
    resolved = make_elastic("residual", resolution=True)
    channels = [ELASTIC.n_levels - 1] * ELASTIC.n_groups
    assert untrained_in_use(resolved, 3, 1.0).tolist() == [[*channels, level] for level in (1, 2, 4)]
    assert untrained_in_use(resolved, 3, 0.05).tolist() == [[each] * resolved.n_groups for each in (1, 2, 4)]
    assert untrained_in_use(ELASTIC, 4, 0.5).tolist() == [[each] * ELASTIC.n_groups for each in (1, 2, 3, 4)]
