"""The table of keep levels, in closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlprune.elastic.levels import KEEP_RATIOS, KeepLevels, checked_ratios, nearest_profiles
from rlprune.errors import LevelsError

BOOK = torch.tensor([[0, 1, 0], [2, 2, 2], [4, 4, 4]])
TABLE = KeepLevels(KEEP_RATIOS, torch.tensor([0, 1, 0]))
levels = st.lists(st.tuples(*[st.integers(-6, 9)] * 3), min_size=1, max_size=4)


def test_the_table_says_how_many_groups_and_levels_there_are() -> None:
    assert (TABLE.n_groups, TABLE.n_levels, TABLE.narrowest) == (3, 5, 1)
    assert TABLE.keep_ratios == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert KeepLevels((0.5, 1), torch.zeros(2, dtype=torch.int64)).narrowest == 0


def test_full_and_uniform_profiles_respect_the_lowest_levels() -> None:
    assert TABLE.full.tolist() == [4, 4, 4] and TABLE.full.dtype == torch.int64
    assert [TABLE.uniform(level).tolist() for level in range(5)] == [
        [max(k, low) for low in (0, 1, 0)] for k in range(5)
    ]


@given(levels)
def test_clamping_gives_the_nearest_levels_that_exist_and_changes_no_other(rows: list[tuple[int, ...]]) -> None:
    clamped = TABLE.clamp(torch.tensor(rows))
    expected = [[min(max(level, low), 4) for level, low in zip(row, (0, 1, 0), strict=True)] for row in rows]
    assert clamped.tolist() == expected
    assert torch.equal(TABLE.clamp(clamped), clamped)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_ratios_and_levels_are_each_other_s_inverse(chosen: list[int]) -> None:
    ratios = TABLE.ratios_of(torch.tensor(chosen))
    assert ratios.tolist() == [level / 4 for level in chosen] and ratios.dtype == torch.float32
    kept = [level for level in chosen if level > 0]
    assert [TABLE.level_of(level / 4) for level in kept] == kept


@pytest.mark.parametrize("ratio", [0.0, 0.3, -0.25, 1.25, float("nan")])
def test_a_width_that_is_no_keep_ratio_is_refused_with_those_that_are(ratio: float) -> None:
    with pytest.raises(LevelsError, match=r"width .* allowed: 0\.25, 0\.5, 0\.75, 1\.0 \("):
        TABLE.level_of(ratio)


def test_tables_are_equal_by_their_ratios_and_lowest_levels() -> None:
    assert KeepLevels((0, 0.25, 0.5, 0.75, 1), torch.tensor([0, 1, 0])) == TABLE
    assert KeepLevels(KEEP_RATIOS, torch.tensor([0, 0, 0])) != TABLE
    assert KeepLevels((0, 0.5, 1), torch.tensor([0, 1, 0])) != TABLE
    assert TABLE != KEEP_RATIOS
    assert repr(TABLE) == "KeepLevels(keep_ratios=(0.0, 0.25, 0.5, 0.75, 1.0), min_level=[0, 1, 0])"
    with pytest.raises(TypeError, match="unhashable"):
        hash(TABLE)


@given(st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True))
def test_ascending_shares_up_to_one_are_keep_ratios_and_in_any_other_order_they_are_not(hundredths: list[int]) -> None:
    ratios = [*(share / 100 for share in sorted(hundredths)), 1]
    assert checked_ratios(ratios) == tuple(map(float, ratios))
    for wrong in (ratios[::-1], ratios[:-1], [*ratios, 1], [-0.01, *ratios]):
        with pytest.raises(LevelsError, match="at least two, ascending, from 0 or more up to exactly 1, are needed"):
            checked_ratios(wrong)


def test_a_profile_is_nearest_to_itself() -> None:
    rows = torch.tensor([[0, 1, 0], [4, 4, 3], [2, 1, 2], [4, 4, 4]])
    assert nearest_profiles(rows, BOOK).tolist() == [0, 2, 1, 2]
    assert nearest_profiles(BOOK, BOOK).tolist() == [0, 1, 2]


@given(levels)
def test_no_other_profile_is_nearer_and_of_equally_near_ones_the_first_counts(rows: list[tuple[int, ...]]) -> None:
    found = nearest_profiles(torch.tensor(rows), BOOK).tolist()
    for row, index in zip(rows, found, strict=True):
        distances = [sum(abs(a - b) for a, b in zip(row, profile, strict=True)) for profile in BOOK.tolist()]
        assert index == distances.index(min(distances))
    assert int(nearest_profiles(torch.tensor(rows[0]), BOOK)) == found[0]
