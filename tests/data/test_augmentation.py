from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from rlprune.data.augmentation import augment, crop, draw_views, take_views
from rlprune.models.libraries import own_preprocessing


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


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_crops_are_those_of_torchvision(channels: int) -> None:
    own_preprocessing("torchvision:resnet18")  # which also makes torchvision importable
    from torchvision.transforms import functional

    images = torch.randint(0, 256, (6, channels, 12, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    views = draw_views(6, torch.Generator().manual_seed(2), padding=4, flip=True, crop_scale=(0.2, 0.6))
    for image, taken, (share, log_ratio, x, y, mirrored) in zip(
        images, take_views(images, views, padding=4), views.tolist(), strict=True
    ):
        area = share * 240
        width, height = round((area * math.exp(log_ratio)) ** 0.5), round((area / math.exp(log_ratio)) ** 0.5)
        width, height = min(width, 20), min(height, 12)
        place = int(y * (13 - height)), int(x * (21 - width))
        for layer, found in zip(image, taken, strict=True):
            cut = functional.resized_crop(Image.fromarray(layer.numpy()), *place, height, width, [12, 20])
            expected = torch.from_numpy(np.array(cut))
            assert torch.equal(found, expected.flip(1) if mirrored else expected)


def test_crops_take_shares_and_shapes_between_the_bounds() -> None:
    views = draw_views(4000, torch.Generator().manual_seed(7), padding=0, flip=True, crop_scale=(0.1, 0.5))
    assert 0.1 <= views[:, 0].min() < 0.102 and 0.498 < views[:, 0].max() <= 0.5
    assert views[:, 1].exp().min() >= 0.7499 and views[:, 1].exp().max() <= 1.3334
    assert abs(views[:, 4].mean() - 0.5) < 0.03
    whole = crop(Image.new("RGB", (7, 90)), (1.0, 0.2, 0.999, 0.999, 0.0), (4, 4), Image.Resampling.BILINEAR)
    assert whole.size == (4, 4)  # longer than any wanted shape: as much of it as there is
