"""What a batch holds: which images, in which views, and how large."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nets import (
    IMAGE_SHAPE,
    make_data,
    seen_batches,
)
from quick import QUICK

from rlprune.data.image_set import normalise
from rlprune.training.adaptation import AdaptSettings
from rlprune.training.batches import index_batches, remembered_views
from rlprune.training.settings import TrainingSettings


def test_a_last_batch_of_one_image_is_left_out() -> None:
    assert [batch.tolist() for batch in index_batches(torch.arange(5), 2)] == [[0, 1], [2, 3]]
    assert [batch.tolist() for batch in index_batches(torch.arange(6), 4)] == [[0, 1, 2, 3], [4, 5]]
    assert [batch.tolist() for batch in index_batches(torch.arange(1), 4)] == [[0]]  # there is nothing else


@given(st.integers(2, 60), st.integers(2, 20))
def test_batches_are_all_images_in_order_but_a_single_last_one(n: int, batch_size: int) -> None:
    batches = index_batches(torch.arange(n), batch_size)
    left_out = n > batch_size and n % batch_size == 1
    assert torch.equal(torch.cat([*batches]), torch.arange(n - left_out))
    assert len(batches) == -(-n // batch_size) - left_out and min(map(len, batches)) >= 2


def view_of(images: torch.Tensor, view: list[int], padding: int) -> torch.Tensor:
    """One image, cut out and mirrored by hand."""
    down, right, mirrored = view
    cut = F.pad(images, (padding,) * 4)[:, down : down + images.shape[1], right : right + images.shape[2]]
    return cut.flip(2) if mirrored else cut


def test_with_views_batches_hold_these_views_and_no_others() -> None:
    data, settings = make_data(12), TrainingSettings(epochs=20, views=3, **QUICK)
    table = remembered_views(12, settings)
    seen = set()
    for batch in seen_batches(data, settings):
        for row, (i, v) in enumerate(zip(batch.indices.tolist(), batch.views.tolist(), strict=True)):
            view = view_of(data.images[i], table[i, v].tolist(), 2)
            assert torch.equal(batch.images[row], normalise(view[None], data.mean, data.std)[0])
            assert batch.labels[row] == data.labels[i]
            seen.add((i, v))
    assert seen == {(i, v) for i in range(12) for v in range(3)}  # of 240 draws; one missing has a chance of 1 %


def test_each_image_has_views_of_its_own_that_no_seed_changes() -> None:
    settings = TrainingSettings(views=8, padding=3)
    views = remembered_views(50, settings)
    assert views.shape == (50, 8, 3) and len(views.flatten(0, 1).unique(dim=0)) == 7 * 7 * 2
    assert len(views.unique(dim=0)) == 50
    for other in (replace(settings, seed=5), replace(settings, epochs=3), AdaptSettings(views=8, padding=3)):
        assert torch.equal(remembered_views(50, other), views)
    assert not remembered_views(50, replace(settings, flip=False))[..., 2].any()
    assert remembered_views(50, replace(settings, padding=1))[..., :2].unique().tolist() == [0, 1, 2]


def test_more_images_change_no_views_of_the_first() -> None:
    settings = TrainingSettings(views=3)
    few, many = remembered_views(40, settings), remembered_views(1000, settings)
    assert torch.equal(few, many[:40]) and not torch.equal(few, many[40:80])
    assert (many[..., :2].unique() == torch.arange(9)).all() and 0.45 < many[..., 2].double().mean() < 0.55


def test_without_views_every_epoch_sees_new_ones() -> None:
    data, settings = make_data(8), TrainingSettings(epochs=5, **QUICK)
    batches = seen_batches(data, settings)
    assert not torch.stack([batch.views for batch in batches]).any()
    firsts = [batch.images[batch.indices == 0][0] for batch in batches]
    assert len(torch.stack(firsts).unique(dim=0)) > 3
    one = [batch.images[batch.indices == 0][0] for batch in seen_batches(data, replace(settings, views=1))]
    assert len(torch.stack(one).unique(dim=0)) == 1


@pytest.mark.parametrize(
    ("early", "sizes"),
    [
        ({}, [16, 16, 16, 16, 16]),
        ({"early_size": 8}, [8, 8, 8, 16, 16]),
        ({"early_size": 8, "early_share": 0.0}, [16, 16, 16, 16, 16]),
        ({"early_size": 12, "early_share": 0.25}, [12, 16, 16, 16, 16]),
        ({"early_size": 4, "early_share": 1.0, "views": 2}, [4, 4, 4, 4, 4]),
    ],
)
def test_images_are_shrunk_in_early_epochs_only(early: dict[str, Any], sizes: list[int]) -> None:
    data = make_data(16)
    grey = replace(data, images=data.labels.to(torch.uint8)[:, None, None, None].expand(16, *IMAGE_SHAPE) * 20)
    settings = TrainingSettings(epochs=5, **QUICK | {"padding": 0} | early)
    batches = seen_batches(grey, settings)
    assert [tuple(batch.images.shape[1:]) for batch in batches] == [(3, size, size) for size in sizes]
    for batch in batches:  # of an image of one grey nothing but its size changes
        expected = ((batch.labels * 20 / 255 - 0.5) / 0.25)[:, None, None, None].expand_as(batch.images)
        assert torch.allclose(batch.images, expected, atol=1e-5)
