from __future__ import annotations

from typing import Any

import pytest
from my_data import all_codes
from nets import make_elastic

from rlprune.data.image_set import Splits
from rlprune.data.loading import SHARES
from rlprune.errors import RLPruneError
from rlprune.pipelines.inputs import load_fitting
from rlprune.pipelines.options import DataOptions
from rlprune.storage.data_format import DataFormat

pytestmark = pytest.mark.usefixtures("apart")
NETWORK = make_elastic("residual")
EXPECTED = DataFormat((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), tuple("abcde"))
OTHERS = (0.5, 0.3, 0.2)


def load(made_with: dict[str, Any] | None, **options: Any) -> Splits:
    metadata = {} if made_with is None else {"source": {"data": "my_data:five_colours", "split_seed": 0} | made_with}
    return load_fitting(NETWORK.image_shape, EXPECTED, metadata, DataOptions("my_data:five_colours", **options))


def sizes(splits: Splits) -> list[int]:
    return [len(part) for part in (splits.network, splits.policy, splits.validation, splits.test)]


@pytest.mark.parametrize(
    ("made_with", "asked", "expected"),
    [
        ({"shares": [0.5, 0.3, 0.2]}, None, [40, 24, 16, 20]),
        ({"shares": [0.5, 0.3, 0.2]}, OTHERS, [40, 24, 16, 20]),
        ({"shares": None}, None, [56, 16, 8, 20]),
        ({"shares": None}, SHARES, [56, 16, 8, 20]),
        ({}, None, [56, 16, 8, 20]),  # as older networks say it
        ({}, SHARES, [56, 16, 8, 20]),
        ({"data": "elsewhere", "shares": [0.1, 0.1, 0.8]}, OTHERS, [40, 24, 16, 20]),
        ({"data": "elsewhere", "shares": [0.1, 0.1, 0.8]}, None, [56, 16, 8, 20]),
        (None, OTHERS, [40, 24, 16, 20]),
    ],
)
def test_images_are_divided_as_they_were_for_the_network(made_with: Any, asked: Any, expected: list[int]) -> None:
    splits = load(made_with, shares=asked)
    assert sizes(splits) == expected
    assert splits.test.mean == EXPECTED.mean and splits.policy.std == EXPECTED.std


@pytest.mark.parametrize(
    ("made_with", "options", "message"),
    [
        (
            {"shares": [0.5, 0.3, 0.2]},
            {"shares": SHARES},
            r"trained on splits of \(0\.5, 0\.3, 0\.2\); with --shares \(0\.7, 0\.2, 0\.1\) some of its training",
        ),
        (
            {"shares": None},
            {"shares": OTHERS},
            r"trained on splits of \(0\.7, 0\.2, 0\.1\); with --shares \(0\.5, 0\.3, 0\.2\) some",
        ),
        ({"split_seed": 2}, {}, "trained on the split of seed 2; with --split-seed 0 some of its training images"),
    ],
)
def test_images_that_trained_the_network_are_not_measured(made_with: Any, options: Any, message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        load(made_with, **options)


def test_shares_decide_how_many_images_there_are_of_each_kind() -> None:
    splits = DataOptions("my_data:hundred", shares=OTHERS).load()
    assert sizes(splits) == [40, 24, 16, 20]
    assert all_codes(splits)[3] == all_codes(DataOptions("my_data:hundred").load())[3]
