from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import make_elastic
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from rlprune.elastic.levels import KeepLevels
from rlprune.errors import LevelsError
from rlprune.policies.actions import Actions

RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
LOWEST = torch.tensor([0, 1, 0])
LEVELS = KeepLevels(RATIOS, LOWEST)
BOOK = torch.tensor([[0, 1, 0], [2, 2, 2], [4, 4, 4]])


def make(kind: Any, max_passes: int = 1, keep_ratios: tuple[float, ...] = RATIOS) -> Actions:
    return Actions(kind, KeepLevels(keep_ratios, LOWEST), BOOK, max_passes)


def decode(actions: Actions, *rows: Any) -> tuple[list[Any], list[bool]]:
    levels, accept = actions.decode(torch.tensor(rows))
    assert levels.dtype == torch.int64
    return levels.tolist(), accept.tolist()


@pytest.mark.parametrize(
    ("kind", "max_passes", "choices", "n_outputs"),
    [
        ("profiles", 1, (3,), 3),
        ("profiles", 2, (4,), 4),
        ("levels", 1, (5, 4, 5), 14),
        ("levels", 3, (5, 4, 5, 2), 16),
        ("ratios", 1, (), 3),
        ("ratios", 2, (), 4),
    ],
)
def test_how_many_choices_there_are(kind: str, max_passes: int, choices: tuple[int, ...], n_outputs: int) -> None:
    actions = make(kind, max_passes)
    assert actions.n_choices == choices
    assert actions.n_outputs == n_outputs


def test_profiles_are_rows_of_the_codebook_and_the_last_value_accepts() -> None:
    assert decode(make("profiles"), [0], [2]) == ([BOOK[0].tolist(), BOOK[2].tolist()], [False, False])
    assert decode(make("profiles", 2), [1], [3]) == ([BOOK[1].tolist(), BOOK[0].tolist()], [False, True])


def test_levels_count_from_the_lowest() -> None:
    assert decode(make("levels"), [0, 0, 0], [4, 3, 1]) == ([[0, 1, 0], [4, 4, 1]], [False, False])
    assert decode(make("levels", 2), [1, 1, 1, 0], [1, 1, 1, 1]) == ([[1, 2, 1]] * 2, [False, True])


def test_ratios_are_taken_to_the_nearest_level() -> None:
    actions = make("ratios", 2)
    rows = [-1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 0.1], [0.0, -0.6, 0.3, 0.0], [9.0, -9.0, 0.7, 1.0]
    assert decode(actions, *rows) == (
        [[0, 1, 0], [4, 4, 4], [2, 1, 3], [4, 1, 3]],
        [False, True, False, True],
    )


def test_ratios_start_at_the_lowest_keep_ratio() -> None:
    actions = make("ratios", keep_ratios=(0.5, 0.75, 1.0))
    assert decode(actions, [-1.0, -0.4, 0.0], [-0.6, 0.4, 0.6])[0] == [[0, 1, 1], [0, 1, 2]]


@given(st.lists(st.integers(0, 4), min_size=3, max_size=3))
def test_every_level_can_be_said_in_each_way(levels: list[int]) -> None:
    wanted = torch.tensor(levels).maximum(LOWEST)
    as_ratios = torch.tensor(RATIOS)[wanted] * 2 - 1
    assert decode(make("levels"), (wanted - LOWEST).tolist())[0] == [wanted.tolist()]
    assert decode(make("ratios"), as_ratios.tolist())[0] == [wanted.tolist()]


@given(st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3))
def test_the_level_of_a_ratio_is_the_nearest_that_exists(action: list[float]) -> None:
    ((found,), _) = decode(make("ratios"), action)
    for level, low, value in zip(found, LOWEST.tolist(), action, strict=True):
        wanted = (min(max(value, -1), 1) + 1) / 2
        nearest = min(abs(wanted - ratio) for ratio in RATIOS[low:])
        assert abs(wanted - RATIOS[level]) == pytest.approx(nearest, abs=1e-6)


def test_greedy_is_the_likeliest_of_each_entry() -> None:
    outputs = torch.tensor([[0.0, 1, 0, 0, 0, 0, 0, 0, 9, 5, 4, 4, 4, 4, -1, -2]])
    assert make("levels", 2).greedy(outputs).tolist() == [[1, 3, 0, 0]]
    assert make("profiles", 2).greedy(torch.tensor([[0.0, 1, 2, 3], [4, 1, 2, 3]])).tolist() == [[3], [0]]
    assert make("ratios").greedy(torch.tensor([[-2.0, 0.5, 7]])).tolist() == [[-1, 0.5, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("widths", LEVELS, None, 1), "action kind 'widths' is unknown; allowed: profiles, levels, ratios"),
        (("levels", LEVELS, None, 0), "max_passes is 0; 1, 2 or 3 is allowed"),
        (("levels", LEVELS, None, 4), "max_passes is 4; 1, 2 or 3 is allowed"),
        (("profiles", LEVELS, None, 1), "action kind 'profiles' needs a codebook: int64"),
    ],
)
def test_wrong_settings(arguments: Any, message: str) -> None:
    with pytest.raises(LevelsError, match=message):
        Actions(*arguments)


@pytest.mark.parametrize(
    ("codebook", "message"),
    [
        (torch.tensor([1, 1, 1]), r"codebook has shape \(3,\); \(K, G\) with K from 1 to 16 is needed"),
        (torch.zeros(0, 3, dtype=torch.int64), r"codebook has shape \(0, 3\)"),
        (torch.ones(17, 3, dtype=torch.int64), r"codebook has shape \(17, 3\)"),
        (torch.ones(2, 4, dtype=torch.int64), r"levels have shape \(2, 4\); this network has 3 groups"),
        (torch.tensor([[0, 1, 0], [0, 0, 0]]), r"level 0 of group 1 \(b2.expand\) does not exist; allowed: 1 to 4"),
    ],
)
def test_wrong_codebooks(codebook: Tensor, message: str) -> None:
    with pytest.raises(LevelsError, match=message):
        make_elastic("depthwise").check_codebook(codebook)


def test_actions_of_a_network() -> None:
    elastic = make_elastic("depthwise")
    actions = Actions.from_network(elastic, "profiles", BOOK.tolist(), 2)
    assert torch.equal(actions.codebook, BOOK)
    assert torch.equal(actions.keep_levels.min_level, elastic.min_level)
    assert actions.keep_levels.keep_ratios == elastic.keep_ratios


@pytest.mark.parametrize("kind", ["profiles", "levels", "ratios"])
def test_what_an_exporter_decodes_first_decodes_as_before_afterwards(kind: Any) -> None:
    actions = make(kind, 2)
    rows = torch.ones(1, 1 if kind == "profiles" else 4, dtype=torch.float32 if kind == "ratios" else torch.int64)
    with FakeTensorMode(allow_non_fake_inputs=True):
        actions.decode(rows)
    assert actions.decode(rows)[0].tolist() == make(kind, 2).decode(rows)[0].tolist()
