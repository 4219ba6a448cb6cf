"""One picture in forty files: the same pixels, or refused by name."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rlprune.data.decoding import read_images
from rlprune.data.pictures import read_picture, suffixes
from rlprune.errors import DataError

HEIGHT, WIDTH = 16, 24
BLOCKS = [[[200, 40, 40], [220, 180, 60], [90, 90, 90]], [[40, 40, 200], [30, 160, 70], [140, 60, 150]]]
COLOURS: NDArray[np.uint8] = np.array(BLOCKS, np.uint8).repeat(8, 0).repeat(8, 1)
"""No two corners are alike: another orientation has other pixels. JPEG keeps blocks of 8 x 8 nearly as they are."""
PICTURE = Image.fromarray(COLOURS)
GREY = PICTURE.convert("L")
SMALL = PICTURE.quantize(256)
BACK = {1: 0, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""What a viewer undoes for each orientation tag, and so how the picture has to be stored."""

Write = Callable[[Path], None]


def saved(picture: Image.Image, **options: Any) -> Write:
    return lambda path: picture.save(path, **options)


def turned(tag: int, picture: Image.Image = PICTURE, **options: Any) -> Write:
    """The picture stored as a phone does that was held in one of eight ways."""
    exif = Image.Exif()
    exif[0x0112] = BACK[tag]
    stored = picture.copy() if tag == 1 else ImageOps.exif_transpose(_tagged(picture, BACK[tag]))
    exif[0x0112] = tag
    return lambda path: stored.save(path, exif=exif, **options)


def _tagged(picture: Image.Image, tag: int) -> Image.Image:
    copy = picture.copy()
    copy.getexif()[0x0112] = tag
    return copy


def transparent(picture: Image.Image) -> Image.Image:
    """The picture with a transparent black right half, which white has to show through."""
    solid = picture.convert("RGBA")
    solid.paste((0, 0, 0, 0), (WIDTH // 2, 0, WIDTH, HEIGHT))
    return solid


def animated(path: Path) -> None:
    other = Image.new("RGB", PICTURE.size, "red")
    PICTURE.save(path, save_all=True, append_images=[other, other], lossless=True)


def sixteen_bits(kind: str) -> Image.Image:
    return Image.fromarray((np.asarray(GREY).astype(np.uint16) * 257).astype(kind))


HALF = COLOURS.copy()
HALF[:, WIDTH // 2 :] = 255
LAB = Image.frombytes("LAB", PICTURE.size, COLOURS.tobytes())
BEST = {"quality": 100, "subsampling": 0}
FORTY: list[tuple[str, Write, Any]] = [
    *((f"turned{tag}.jpg", turned(tag, **BEST), COLOURS) for tag in range(1, 9)),
    *((f"turned{tag}.png", turned(tag), COLOURS) for tag in (3, 6, 8)),
    ("turned6.webp", turned(6, lossless=True), COLOURS),
    ("turned8.tiff", turned(8), COLOURS),
    *(
        (f"plain.{suffix}", saved(PICTURE), COLOURS)
        for suffix in ("png", "bmp", "ppm", "tga", "sgi", "pcx", "jp2", "qoi")
    ),
    ("plain.JPEG", saved(PICTURE, **BEST), COLOURS),
    ("progressive.jfif", saved(PICTURE, progressive=True, **BEST), COLOURS),
    ("plain.webp", saved(PICTURE, lossless=True), COLOURS),
    ("plain.tif", saved(PICTURE, compression="tiff_lzw"), COLOURS),
    ("plain.dib", saved(PICTURE), COLOURS),
    ("cmyk.tiff", saved(PICTURE.convert("CMYK")), COLOURS),
    ("cmyk.jpg", saved(PICTURE.convert("CMYK"), **BEST), COLOURS),
    ("lab.tiff", saved(LAB), "mode LAB; save it in grey or RGB"),
    ("bits32.tiff", saved(Image.new("I", PICTURE.size)), "mode I, 32 bits; save it with 8 or 16 bits"),
    ("palette.png", saved(SMALL), np.asarray(SMALL.convert("RGB"))),
    ("palette.gif", saved(SMALL), np.asarray(SMALL.convert("RGB"))),
    ("animated.webp", animated, COLOURS),
    ("animated.png", animated, COLOURS),
    ("pages.tiff", lambda path: PICTURE.save(path, save_all=True, append_images=[GREY]), COLOURS),
    ("transparent.png", saved(transparent(PICTURE)), HALF),
    ("transparent.webp", saved(transparent(PICTURE), lossless=True), HALF),
    ("solid.png", saved(PICTURE.convert("RGBA")), COLOURS),
    ("grey.png", saved(GREY), np.asarray(GREY)),
    (
        "grey_transparent.png",
        saved(transparent(GREY).convert("LA")),
        np.where(HALF[..., 0] == 255, 255, np.asarray(GREY)),
    ),
    ("sixteen.png", saved(sixteen_bits("u2")), np.asarray(GREY)),
    ("sixteen.tiff", saved(sixteen_bits("u2")), np.asarray(GREY)),
]


def test_there_are_forty() -> None:
    assert len(FORTY) == len({name for name, *_ in FORTY}) >= 40


@pytest.mark.parametrize(("name", "write", "expected"), FORTY, ids=[name for name, *_ in FORTY])
def test_every_file_has_the_pixels_that_a_viewer_shows(
    name: str, write: Write, expected: NDArray[np.uint8] | str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if path.suffix == ".qoi" and "QOI" not in Image.SAVE:
        pytest.skip("this version of Pillow reads such files and writes none")
    write(path)
    assert path.suffix.lower() in suffixes()
    if isinstance(expected, str):
        with pytest.raises(DataError, match=f"^{name} has pixels of {expected}"):
            read_picture(name, path)
        return
    pixels = read_picture(name, path)
    wanted = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    assert pixels.shape == wanted.shape
    assert np.abs(pixels.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_are_read_in_either_order_of_bytes(dtype: str) -> None:
    picture = Image.frombytes(
        {"<u2": "I;16", ">u2": "I;16B"}[dtype], GREY.size, (np.asarray(GREY) * np.uint16(257)).astype(dtype).tobytes()
    )
    assert np.array_equal(read_picture("x", picture)[0], np.asarray(GREY))


def test_every_form_of_numbers_is_the_same_picture() -> None:
    tensor = torch.from_numpy(COLOURS.copy()).permute(2, 0, 1)
    for form in (
        COLOURS,
        COLOURS.transpose(2, 0, 1),
        COLOURS / 255,
        tensor,
        tensor / 255,
        COLOURS.astype(np.uint16) * 257,
    ):
        assert np.array_equal(read_picture("x", form), tensor.numpy())
    grey = np.asarray(GREY)
    for form in (grey, grey[..., None], grey[None], torch.from_numpy(grey.copy()), GREY):
        assert np.array_equal(read_picture("x", form), grey[None])
    assert np.array_equal(read_picture("x", np.asarray(transparent(PICTURE))), HALF.transpose(2, 0, 1))
    assert read_picture("x", np.eye(3, dtype=bool)).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            np.zeros((4, 4, 2), np.uint8),
            r"x is an array of shape \(4, 4, 2\); return \(H, W\) or \(H, W, C\) with 1, 3 or 4",
        ),
        (np.zeros((4, 4), np.int64), r"x is an array of int64; return uint8, or float in \[0, 1\]"),
        (np.full((4, 4), np.nan), r"x has float values from nan to nan; return values in \[0, 1\]"),
        (Image.new("I", (4, 4)), r"x has pixels of mode I, 32 bits; save it with 8 or 16 bits"),
        (Image.fromarray(np.full((4, 4), 300.0, np.float32)), r"x has float values from 300 to 300"),
        (np.zeros((0, 4), np.uint8), r"x is an array of shape \(0, 4\)"),
        (None, "x has nothing for a picture; give a path"),
        ([[0, 1]], "x has a list for a picture; give a path, the bytes of a file"),
    ],
)
def test_what_cannot_be_a_picture_is_refused_by_name(item: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_picture("x", item)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cat.png")
    with pytest.raises(DataError, match=r"cat\.png cannot be read as an image \(it is no regular file\)"):
        read_picture(str(tmp_path / "cat.png"), tmp_path / "cat.png")


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6\n")
    with pytest.raises(
        DataError, match=r"cat\.png cannot be read as an image \(it is a pointer of Git LFS, .*git lfs pull"
    ):
        read_images([tmp_path / "cat.png"], (3, 8, 8))


def test_damaged_tags_do_not_keep_a_picture_from_being_read() -> None:
    file = io.BytesIO()
    PICTURE.save(file, "PNG", exif=b"Exif\x00\x00nothing of the kind")
    assert np.array_equal(read_picture("x", file), COLOURS.transpose(2, 0, 1))


def test_rectangles_are_read_as_they_are_and_others_cover_them(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "fits.png")
    wide = Image.new("RGB", (100, 20))
    wide.paste((200, 0, 0), (35, 0, 65, 20))  # 20 pixels are scaled to 16, of 80 the middle 24 are taken
    wide.save(tmp_path / "wide.png")
    fits, covers = read_images([tmp_path / "fits.png", tmp_path / "wide.png"], (3, HEIGHT, WIDTH))
    assert torch.equal(fits, torch.from_numpy(COLOURS.copy()).permute(2, 0, 1))
    assert covers.shape == fits.shape and covers.float().mean((1, 2))[0] > 180
    tall = read_images([tmp_path / "fits.png"], (1, 40, 10))
    assert tall.shape == (1, 1, 40, 10)
