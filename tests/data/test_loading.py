from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from my_data import PARTS, all_codes, codes, flat

from rlprune.data.augmentation import augment, draw_views, take_views
from rlprune.data.image_set import ImageSet, normalise
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


def test_batches_are_the_set_in_order() -> None:
    images = load("my_data:hundred").network
    batches = list(images.batches(24))
    assert [len(labels) for _, labels in batches] == [24, 24, 8]
    assert torch.equal(torch.cat([batch for batch, _ in batches]), images.normalised())
    assert torch.equal(torch.cat([labels for _, labels in batches]), images.labels)


def test_a_subset_keeps_what_belongs_to_each_image() -> None:
    images = load("my_data:hundred").network
    some = images.subset([5, 3])
    assert codes(some) == [codes(images)[5], codes(images)[3]] and len(some) == 2
    assert torch.equal(some.normalised(), images.normalised([5, 3]))
    assert (some.labels.tolist(), some.classes) == (images.labels[[5, 3]].tolist(), ("even", "odd"))


def test_normalise_is_the_closed_form_for_bytes_and_floats() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(2, 2, 8, 8)
    mean, std = (0.25, 0.5), (0.2, 0.1)
    expected = (images.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    floats = images.double() / 255
    for given in (images, floats, floats.float()):
        result = normalise(given, mean, std)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-6)
    assert torch.equal(floats, images.double() / 255)
    assert normalise(images[:0].float(), mean, std).shape == (0, 2, 8, 8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 8, 8), r"shape \(1, 8, 8\); give \(B, 1, H, W\), for one image images\[None\]"),
        (torch.zeros(2, 3, 8, 8), r"shape \(2, 3, 8, 8\); give \(B, 1, H, W\)"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.int64), r"images are torch\.int64; give uint8 in \[0, 255\]"),
        (torch.full((2, 1, 8, 8), 255.0), r"float values from 255 to 255; give values in \[0, 1\]"),
        (torch.full((2, 1, 8, 8), -0.1), r"float values from -0\.1 to -0\.1"),
        (torch.full((2, 1, 8, 8), torch.nan), r"float values from nan to nan"),
    ],
)
def test_normalise_refuses_what_is_no_image(images: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        normalise(images, (0.5,), (0.5,))


def test_augment_shifts_a_pixel_by_at_most_the_padding_and_by_every_amount() -> None:
    images = torch.zeros(2000, 2, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 7
    shifted = augment(images, torch.Generator().manual_seed(0), padding=2, flip=False)
    image, channel, row, column = shifted.nonzero().unbind(1)
    assert len(image) == 4000 and torch.equal(shifted.sum((1, 2, 3)), torch.full((2000,), 14))
    assert torch.equal(row[channel == 0], row[channel == 1])
    counts = torch.bincount((row - 2) * 5 + column - 2, minlength=25)
    assert (row - 4).abs().max() == 2 and (column - 4).abs().max() == 2
    assert len(counts) == 25 and (counts - 160).abs().max() < 5 * 2 * (160 * 24 / 25) ** 0.5


def test_augment_flips_about_half_and_leaves_the_rest() -> None:
    images = torch.randint(1, 256, (1000, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flipped = augment(images, torch.Generator().manual_seed(1), padding=0, flip=True)
    is_flipped = (flipped == images.flip(3)).flatten(1).all(1)
    is_same = (flipped == images).flatten(1).all(1)
    assert torch.equal(is_flipped, ~is_same)
    assert abs(int(is_flipped.sum()) - 500) < 4 * 250**0.5


def test_augment_fills_with_black_repeats_with_its_seed_and_changes_no_input() -> None:
    images = torch.full((64, 1, 4, 4), 9, dtype=torch.uint8)
    first, again = (augment(images, torch.Generator().manual_seed(3), padding=4, flip=True) for _ in range(2))
    assert torch.equal(first, again) and first.dtype == torch.uint8
    assert set(first.unique().tolist()) == {0, 9}
    assert (images == 9).all()
    assert torch.equal(augment(images, torch.Generator(), padding=0, flip=False), images)


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_a_view_says_how_far_down_and_right_and_whether_mirrored(padding: int) -> None:
    views = torch.cartesian_prod(*(torch.arange(2 * padding + 1),) * 2, torch.arange(2))
    images = torch.randint(0, 256, (len(views), 2, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    taken = take_views(images, views, padding=padding).numpy()
    for before, after, (down, right, mirrored) in zip(images.numpy(), taken, views.tolist(), strict=True):
        cut = np.pad(before, ((0, 0), (padding,) * 2, (padding,) * 2))[:, down : down + 4, right : right + 5]
        assert (after == (cut[:, :, ::-1] if mirrored else cut)).all()
    middle = torch.tensor([[padding, padding, 0]]).expand(len(images), 3)
    assert torch.equal(take_views(images, middle, padding=padding), images)


@pytest.mark.parametrize("flip", [False, True])
def test_views_are_drawn_evenly_and_are_what_augment_does(flip: bool) -> None:
    views = draw_views(5000, torch.Generator().manual_seed(7), padding=2, flip=flip)
    assert (views.shape, views.dtype) == ((5000, 3), torch.int64)
    for column, n_values in zip(views.unbind(1), (5, 5, 1 + flip), strict=True):
        counts, share = column.bincount(), 1 / n_values
        assert len(counts) == n_values
        assert (counts - 5000 * share).abs().max() <= 4 * (5000 * share * (1 - share)) ** 0.5
    images = torch.randint(0, 256, (5000, 1, 3, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augmented = augment(images, torch.Generator().manual_seed(7), padding=2, flip=flip)
    assert torch.equal(augmented, take_views(images, views, padding=2))
