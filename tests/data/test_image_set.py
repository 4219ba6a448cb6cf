from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from my_data import codes
from nets import make_data

from rlprune.data.image_set import PixelScale, normalise
from rlprune.data.loading import load
from rlprune.errors import DataError


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


@pytest.mark.parametrize("bgr", [False, True])
def test_a_product_and_a_sum_normalise_as_well(bgr: bool) -> None:
    pixels = torch.randint(0, 256, (4, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = replace(make_data(4), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    data = replace(data, preprocessing=replace(data.preprocessing, channels="bgr" if bgr else "rgb"))
    kept = pixels.clone()
    torch.testing.assert_close(PixelScale(data)(pixels), data.normalise(pixels), atol=1e-6, rtol=1e-6)
    assert torch.equal(pixels, kept)
