"""How many channels each level keeps, and which keep ratios there can be."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import (
    IMAGE_SHAPE,
    make_elastic,
    network,
)

from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import LevelsError
from rlprune.storage.structure import describe, rebuild

STORED: dict[str, Any] = json.loads(json.dumps(describe(make_elastic("plain"))))


@settings(max_examples=40, deadline=None)
@given(
    ratios=st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True).map(
        lambda r: [x / 100 for x in sorted(r)]
    ),
    round_to=st.integers(1, 48),
)
def test_widths_round_up(ratios: list[float], round_to: int) -> None:
    elastic = rebuild(STORED | {"keep_ratios": [*ratios, 1], "round_to": round_to})
    for group, widths in zip(elastic.groups, elastic.widths.tolist(), strict=True):
        n = group.n_channels
        assert widths[-1] == n
        assert widths == sorted(widths)
        for ratio, width in zip(elastic.keep_ratios, widths, strict=True):
            wanted = round(ratio * 100) * n  # in hundredths of a channel, exactly
            assert width == min(n, -(-wanted // (100 * round_to)) * round_to)
            assert (width == 0) == (ratio == 0)


def test_a_third_of_the_channels_is_a_third() -> None:
    elastic = rebuild(STORED | {"keep_ratios": [0, 1 / 3, 2 / 3, 1]})
    assert elastic.widths.tolist() == [[0, 16, 24, 32], [0, 8, 16, 24], [0, 16, 32, 40]]


def test_uniform_and_full_profiles() -> None:
    elastic = make_elastic("depthwise")
    assert elastic.min_level.tolist() == [0, 1, 0]
    assert [elastic.uniform(level).tolist() for level in (0, 1, 4)] == [[0, 1, 0], [1, 1, 1], [4, 4, 4]]
    assert torch.equal(elastic.full, elastic.uniform(4))
    assert (elastic.n_groups, elastic.n_levels) == (3, 5)


@pytest.mark.parametrize(
    "ratios",
    [
        (),
        (1,),
        (0.5, 0.25, 1),
        (0.5, 0.5, 1),
        (-0.1, 1),
        (0, 0.5),
        (0, 1.5),
        (0, math.nan),
        (math.nan, 1),
        (0, math.nan, 1),
    ],
)
def test_keep_ratios_are_checked(ratios: tuple[float, ...]) -> None:
    with pytest.raises(LevelsError, match="at least two, ascending, from 0 or more up to exactly 1, are needed"):
        ElasticCNN.from_model(network("plain"), IMAGE_SHAPE, keep_ratios=ratios)


def test_round_to_is_checked() -> None:
    with pytest.raises(LevelsError, match="round_to is 0; it must be 1 or more channels"):
        ElasticCNN.from_model(network("plain"), IMAGE_SHAPE, round_to=0)
