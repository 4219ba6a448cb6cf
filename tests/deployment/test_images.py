from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nets import IMAGE_SHAPE, make_data
from PIL import Image
from ranged import DYNAMIC

from rlprune.data.decoding import read_images
from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.images import as_batch
from rlprune.errors import DataError

BYTES = make_data(4).images
FLOATS = BYTES.float() / 255
PLAIN = Preprocessing()
PICTURES = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in BYTES]


def frozen() -> Any:
    array = BYTES.numpy().copy()
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    "images",
    [
        *(FLOATS.to(dtype) for dtype in (torch.float32, torch.float64)),
        BYTES.contiguous(memory_format=torch.channels_last),
        BYTES.repeat(1, 1, 1, 2)[..., :16],
        torch.nn.Parameter(FLOATS),
        torch.complex(FLOATS, -FLOATS).conj().imag,
        BYTES.numpy(),
        np.asfortranarray(FLOATS.numpy()),
        FLOATS.numpy().astype(">f4"),
        FLOATS.double().numpy(),
        BYTES.numpy()[::-1].copy()[::-1],
        frozen(),
        PICTURES,
        tuple(PICTURES),
    ],
)
def test_tensors_arrays_and_pictures_give_the_same(images: Any) -> None:
    expected, found = DYNAMIC(BYTES), DYNAMIC(images)
    assert torch.equal(found.profiles, expected.profiles)
    assert torch.allclose(found.probabilities, expected.probabilities, atol=1e-5)


def test_half_the_bits_are_taken_too_and_one_picture_is_a_batch() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.allclose(DYNAMIC(FLOATS.to(dtype)).probabilities, DYNAMIC(BYTES).probabilities, atol=0.05)
    large = Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3))
    assert torch.equal(as_batch(large, IMAGE_SHAPE, PLAIN), read_images([large], IMAGE_SHAPE, PLAIN))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        *((BYTES.to(dtype), f"images are {dtype}; give uint8") for dtype in (torch.int64, torch.bool, torch.complex64)),
        (FLOATS.to(torch.float8_e4m3fn), "images are torch.float8_e4m3fn; give uint8"),
        (FLOATS.to_sparse(), r"images are a torch\.sparse_coo tensor; give a dense one"),
        (FLOATS.to("meta"), "images are on the device meta, which holds no numbers to read"),
        (BYTES[:0], r"images have shape \(0, 3, 16, 16\); \(B, 3, 16, 16\) with B >= 1 is needed"),
        (torch.zeros([1] * 40), "images have shape of 40 dimensions"),
        (BYTES.long().numpy(), "images are a NumPy array of int64; give uint8"),
        (FLOATS.numpy().astype(object), "images are a NumPy array of object"),
        (np.ma.masked_array(BYTES.numpy(), mask=True), "images are a masked array"),
        (BYTES.numpy()[0], r"images have shape \(3, 16, 16\)"),
        (BYTES.tolist(), r"images are a list of list; give a tensor or a NumPy array \(B, 3, 16, 16\), or pictures"),
        ([*BYTES], "images are a list of Tensor"),
        ([PICTURES[0], "a.png"], "images are a list of Image and str"),
        ([], "images are an empty list"),
        ("a.png", "images are str; give a tensor"),
        (None, "images are NoneType"),
        (Image.new("L", (0, 0)), "picture 0 has 0x0 pixels, which is no picture"),
        (-FLOATS, r"images have float values from -1 to -0; give values in \[0, 1\]"),
        (FLOATS * torch.inf, "images have float values from"),
    ],
)
def test_whatever_else_is_refused_by_name_and_leaves_nothing_behind(images: Any, message: str) -> None:
    before = [*DYNAMIC.slices._uses], DYNAMIC.slices.n_parameters
    with pytest.raises(DataError, match=message):
        DYNAMIC(images)
    assert ([*DYNAMIC.slices._uses], DYNAMIC.slices.n_parameters) == before
    assert DYNAMIC(BYTES).labels.shape == (4,)
