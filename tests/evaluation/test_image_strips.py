from __future__ import annotations

import numpy as np
import pytest
import torch

from rlprune.evaluation.image_strips import RIGHT, WRONG, spending_strip


def images(n: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_bars_are_as_wide_as_the_share_that_was_spent() -> None:
    shares = torch.tensor([0.0, 0.25, 1.0, 2.5])
    strip = spending_strip(images(4), shares, torch.tensor([True, False, True, False]))
    for i, (share, colour) in enumerate(zip(shares.tolist(), (RIGHT, WRONG, RIGHT, WRONG), strict=True)):
        tile = strip[104, 100 * i : 100 * (i + 1)]
        assert (tile == colour).all(-1).sum() == round(min(share, 1) * 95) + 1
    assert strip.shape == (112, 400, 3) and strip.dtype == np.uint8


def test_right_and_wrong_differ_in_more_than_a_colour() -> None:
    same = images(1).expand(2, -1, -1, -1)
    strip = spending_strip(same, torch.zeros(2), torch.tensor([True, False]))
    marks = [(strip[5:22, 100 * i + 79 : 100 * i + 96] == colour).all(-1) for i, colour in enumerate((RIGHT, WRONG))]
    assert marks[0].sum() > 20 and marks[1].sum() > 20
    assert (marks[0] != marks[1]).any()  # a tick and a cross


@pytest.mark.parametrize("channels", [1, 3])
def test_the_images_are_shown_enlarged(channels: int) -> None:
    shown = images(2, channels)
    strip = spending_strip(shown, torch.zeros(2), torch.ones(2, dtype=torch.bool))
    for i in range(2):
        tile = strip[2:98, 100 * i + 2 : 100 * i + 98]
        centres = torch.from_numpy(tile[6::12, 6::12].copy()).permute(2, 0, 1)
        expected = shown[i].expand(3, -1, -1).clone()
        for row, column in ((0, 6), (0, 7), (1, 6), (1, 7)):  # behind the tick
            expected[:, row, column] = centres[:, row, column]
        assert torch.equal(centres, expected)
