"""The rule of the choice, on figures whose best answer is known."""

from __future__ import annotations

import pytest
import torch

from rlprune.optimization.goal import Goal
from rlprune.optimization.verdict.choice import (
    Option,
    best,
    choose,
    drop_interval,
    images_needed,
    images_to_choose,
    paired_error,
    shortfall,
)

N = 1000


def option(name: str, n_wrong: int, macs: float, ms: float, n: int = N) -> Option:
    """An option that is wrong on the first images, where the network as it is is right on all."""
    right = torch.ones(n, dtype=torch.bool)
    right[:n_wrong] = False
    return Option(name, right, torch.ones(n, dtype=torch.bool), macs, ms)


DENSE = option("dense", 0, 1.0, 12.0)
IN_ONNXRUNTIME = option("dense onnxruntime", 0, 1.0, 10.0)


def test_of_what_meets_both_targets_the_most_accurate_is_taken() -> None:
    options = [DENSE, IN_ONNXRUNTIME, option("static", 90, 0.4, 4.0), option("rlprune", 5, 0.45, 4.5)]
    chosen = choose(options, Goal(max_drop=1.0, min_speedup=2.0), 10.0)
    assert (chosen.option.name, chosen.reached, chosen.reason) == ("rlprune", True, "best")


def test_of_what_loses_little_enough_the_fastest_is_taken() -> None:
    options = [DENSE, IN_ONNXRUNTIME, option("static", 4, 0.6, 6.0), option("rlprune", 5, 0.45, 4.5)]
    assert choose(options, Goal(max_drop=1.0), 10.0).option.name == "rlprune"


def test_one_small_network_that_is_as_good_goes_before_decisions() -> None:
    options = [DENSE, IN_ONNXRUNTIME, option("static", 3, 0.45, 4.5), option("rlprune", 2, 0.45, 4.5)]
    chosen = choose(options, Goal(max_drop=1.0, min_speedup=2.0), 10.0)
    assert (chosen.option.name, chosen.reason, chosen.best.name) == ("static", "simpler", "rlprune")


def test_the_network_as_it_is_stays_where_nothing_is_faster() -> None:
    options = [DENSE, IN_ONNXRUNTIME, option("static", 3, 0.45, 9.8), option("rlprune", 2, 0.3, 12.0)]
    chosen = choose(options, Goal(max_drop=1.0), 10.0)
    assert (chosen.option.name, chosen.reached, chosen.reason) == ("dense onnxruntime", False, "nothing gained")


@pytest.mark.parametrize("goal", [Goal(max_drop=0.5), Goal(max_drop=0.5, min_speedup=1.1)])
def test_where_images_are_too_few_to_be_sure_the_nearest_is_recommended_all_the_same(goal: Goal) -> None:
    options = [option("dense", 0, 1.0, 1.0, 100), option("dense int8", 0, 1.0, 0.06, 100)]
    chosen = choose(options, goal, 1.0)
    assert (chosen.option.name, chosen.reached, chosen.reason, chosen.unsure) == ("dense int8", False, "nearest", True)
    needed = images_to_choose(chosen.option, 0.5)
    assert needed is not None and 100 < needed <= 200
    assert images_to_choose(option("static", 5, 0.4, 4.0), 0.5) is None


def test_a_network_that_is_fast_enough_as_it_is_meets_the_goal() -> None:
    chosen = choose([DENSE, IN_ONNXRUNTIME, option("static", 3, 0.4, 5.0)], Goal(max_drop=1.0, max_ms=11.0), 10.0)
    assert (chosen.option.name, chosen.reached) == ("dense onnxruntime", True)


def test_nothing_gained_where_no_target_is_met_and_nothing_helps() -> None:
    options = [DENSE, IN_ONNXRUNTIME, option("static", 300, 0.2, 5.0), option("rlprune", 200, 0.3, 7.0)]
    chosen = choose(options, Goal(max_drop=0.5, min_speedup=4.0), 10.0)
    assert (chosen.option.name, chosen.reached, chosen.reason) == ("dense onnxruntime", False, "nothing gained")


def test_the_nearest_is_recommended_where_it_is_faster_and_loses_little() -> None:
    options = [DENSE, IN_ONNXRUNTIME, option("static", 60, 0.3, 4.5), option("rlprune", 2, 0.5, 6.0)]
    chosen = choose(options, Goal(max_drop=1.0, min_speedup=2.0), 10.0)
    assert (chosen.option.name, chosen.reached, chosen.reason) == ("rlprune", False, "nearest")


def test_half_a_standard_error_is_added_to_a_drop() -> None:
    goal = Goal(max_drop=0.5)
    assert shortfall(option("rlprune", 5, 0.4, 4.0), goal, 10.0) > 0  # 0.5 points, measured on 1000 images
    assert shortfall(option("rlprune", 3, 0.4, 4.0), goal, 10.0) == 0
    assert shortfall(option("rlprune", 45, 0.4, 4.0, 10_000), goal, 10.0) == 0
    assert shortfall(DENSE, Goal(max_drop=0.0), 10.0) == 0


def test_where_only_time_is_bounded_accuracy_counts() -> None:
    options = [option("static", 90, 0.1, 1.0), option("rlprune", 40, 0.45, 4.5)]
    assert best(options, Goal(min_speedup=2.0), 10.0).name == "rlprune"


def test_the_interval_of_a_drop_counts_images_on_which_both_differ() -> None:
    dense = torch.ones(100, dtype=torch.bool)
    low, high = drop_interval(dense, dense)
    assert -3 < low < 0 < high < 3
    low, high = drop_interval(dense.repeat(100), dense.repeat(100))
    assert high == pytest.approx(1.96 * 100 * (2 / 10_002) ** 0.5 / 10_002**0.5, rel=1e-3)


def test_an_error_of_the_same_answers_is_small_but_not_nothing() -> None:
    right = torch.arange(400) % 4 > 0
    assert 0 < paired_error(right, right) < paired_error(right, ~right)


def test_more_images_are_needed_the_nearer_a_drop_is_to_what_is_allowed() -> None:
    dense = torch.ones(60, dtype=torch.bool)
    right = dense.clone()
    right[0] = False  # 1.7 points
    assert images_needed(dense, right, 2.0) > images_needed(dense, right, 5.0)
    assert images_needed(dense, right, 2.0) > 60
