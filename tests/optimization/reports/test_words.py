from __future__ import annotations

import pytest

from rlprune.optimization.reports import words


def test_no_figure_is_less_than_nothing_or_a_power_of_ten() -> None:
    assert [words.points(drop) for drop in (-0.004, 0.0, -0.006, 12.345)] == ["0.00", "0.00", "-0.01", "12.35"]
    assert [words.milliseconds(ms) for ms in (0.0312, 0.5, 1.236, 12.36, 123.6, 1234567.0)] == [
        "0.031",
        "0.500",
        "1.24",
        "12.4",
        "124",
        "1,234,567",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (40_816_640, "40.8 M"), (999_999_999, "1,000 M"), (4.1e12, "4,100 G")],
)
def test_counts_have_a_unit(number: float, text: str) -> None:
    assert words.count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (840, "14 min"), (5400, "1 h 30 min"), (7200, "2 h")]
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_settings_are_spelt_as_words() -> None:
    assert [words.spelt(name) for name in ("n_views", "adapt_epochs")] == ["number of views", "adapt epochs"]
    assert [words.plain(number) for number in (150_000, 0.0125, 2.0)] == ["150,000", "0.0125", "2"]
