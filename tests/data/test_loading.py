from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from my_data import PARTS, all_codes, codes, flat

from rlprune.data.image_set import ImageSet
from rlprune.data.loading import load
from rlprune.errors import DataError

pytestmark = pytest.mark.usefixtures("apart")


def test_splits_are_disjoint_and_hold_every_image() -> None:
    splits = load("my_data:hundred")
    parts = all_codes(splits)
    assert [len(part) for part in parts] == [56, 16, 8, 20]
    assert sorted(flat(parts)) == list(range(100))
    for part in PARTS:
        images: ImageSet = getattr(splits, part)
        assert images.labels.tolist() == [code % 2 for code in codes(images)]


def test_the_seed_alone_decides_about_the_splits() -> None:
    first = all_codes(load("my_data:hundred", seed=1))
    assert all_codes(load("my_data:hundred", seed=1)) == first
    assert all_codes(load("my_data:hundred", seed=2)) != first
    shuffled = np.random.default_rng(1).permutation(100).tolist()
    assert first[3] == shuffled[:20] and flat(first[:3]) == shuffled[20:]


def test_a_test_split_of_its_own_stays_whole_and_in_order() -> None:
    splits = load("my_data:with_test", shares=(0.5, 0.3, 0.2))
    assert [len(part) for part in all_codes(splits)] == [50, 30, 20, 20]
    assert codes(splits.test) == list(range(100, 120))
    assert sorted(flat(all_codes(splits)[:3])) == list(range(100))


def test_the_test_set_is_the_same_whatever_the_shares() -> None:
    assert codes(load("my_data:hundred", shares=(0.4, 0.4, 0.2)).test) == codes(load("my_data:hundred").test)
    assert len(load("my_data:hundred", test_share=0.3).test) == 30


def test_mean_and_std_are_those_of_the_images_that_train_the_network() -> None:
    splits = load("my_data:hundred")
    values = splits.network.images.double() / 255
    assert splits.test.mean == (round(values.mean().item(), 4),)
    assert splits.test.std == (round(values.std(correction=0).item(), 4),)
    normal = splits.network.normalised()
    assert normal.mean().abs() < 1e-3 and (normal.std() - 1).abs() < 0.01


def test_a_constant_channel_has_std_one() -> None:
    assert load("my_data:white_images").validation.std == (1.0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": (0.5, 0.5, 0.0)}, r"shares are \(0\.5, 0\.5, 0\.0\); give three positive numbers"),
        ({"shares": (0.5, 0.2, 0.2)}, r"add up to 1"),
        ({"test_share": 1.0}, r"test_share is 1\.0; give a number between 0 and 1"),
        ({"image_size": 0}, r"image_size is 0; give at least 1 pixel"),
    ],
)
def test_settings_out_of_range_are_named(options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load("my_data:hundred", **options)
